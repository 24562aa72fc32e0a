"""The options of commands for a ControlNet, and for an IP-Adapter."""

from fastdeploy_diffusion.errors import ConfigError


def read_added(
    controlnet: str | None, ip_adapter: str | None, ip_encoder: str | None
) -> dict[str, list[dict[str, str]] | None]:
    """Turn the paths of a ControlNet, an IP-Adapter and its tower into options of a configuration.

    Raises:
        ConfigError: A tower is given, and no adapter.
    """
    if ip_encoder is not None and ip_adapter is None:
        raise ConfigError(
            f"--ip-encoder {ip_encoder} is given, and no --ip-adapter",
            allowed="--ip-encoder with --ip-adapter",
            fix="give --ip-adapter, or leave --ip-encoder out",
        )
    tower = {"image_encoder_path": ip_encoder} if ip_encoder else {}
    return {
        "controlnets": [{"path": controlnet}] if controlnet else None,
        "ip_adapters": None if ip_adapter is None else [{"path": ip_adapter, **tower}],
    }
