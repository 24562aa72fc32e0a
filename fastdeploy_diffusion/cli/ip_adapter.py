"""The options of ``generate`` for an IP-Adapter."""

from typing import Any

from fastdeploy_diffusion.errors import ConfigError


def read_ip_adapter(path: str | None, encoder: str | None) -> list[dict[str, Any]] | None:
    """Turn a file and the folder of its vision tower into a configuration's option.

    Raises:
        ConfigError: The folder is given, and no file.
    """
    if path is None:
        if encoder is not None:
            raise ConfigError(
                f"--ip-encoder {encoder} is given, and no --ip-adapter",
                allowed="--ip-encoder with --ip-adapter",
                fix="give --ip-adapter, or leave --ip-encoder out",
            )
        return None
    return [{"path": path, **({"image_encoder_path": encoder} if encoder else {})}]
