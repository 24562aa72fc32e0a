"""The options of commands for a ControlNet, an IP-Adapter, and LoRAs."""

from collections.abc import Sequence
from typing import Any

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


def read_loras(given: Sequence[str] | None) -> list[dict[str, Any]] | None:
    """Turn ``FILE[:STRENGTH]``, as often as given, into an option of a configuration.

    What follows the last colon is a strength if it is a number, and else part of the path.
    """
    if not given:
        return None
    sections: list[dict[str, Any]] = []
    for text in given:
        path, colon, strength = text.rpartition(":")
        try:
            sections.append(
                {"path": path, "strength": float(strength)} if colon else {"path": text}
            )
        except ValueError:
            sections.append({"path": text})
    return sections
