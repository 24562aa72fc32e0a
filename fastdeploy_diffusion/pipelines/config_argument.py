"""Reads the configuration that a pipeline is made from, in any of its forms."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.config.layers import preset_names
from fastdeploy_diffusion.errors import ConfigError

ConfigLike: TypeAlias = DiffusionConfig | str | os.PathLike[str] | Mapping[str, Any]


def read_config_argument(given: ConfigLike | None, options: Mapping[str, Any]) -> DiffusionConfig:
    """Make the configuration of a pipeline.

    Args:
        given: A configuration; the path of a checkpoint; or options by name.
        options: Further options, where no configuration is given.

    Raises:
        ConfigError: It is something else, both give an option, or an option is refused.
    """
    if isinstance(given, DiffusionConfig):
        if options:
            raise ConfigError(
                f"a DiffusionConfig is given, and options beside it: {', '.join(options)}",
                allowed="a DiffusionConfig with all options, or a path with options",
                fix=f"config.model_copy(update={{{next(iter(options))!r}: …}})",
            )
        return given
    if isinstance(given, str | os.PathLike):
        if str(given) in preset_names() and not Path(given).exists():
            raise ConfigError(
                f"{str(given)!r} is the name of a preset, and there is no such checkpoint here",
                allowed="a DiffusionConfig, or the path of a diffusers folder or .safetensors file",
                fix=f"DiffusionConfig.from_preset({str(given)!r})",
            )
        given = {"model_path": given}
    elif given is None:
        given = {}
    elif not isinstance(given, Mapping):
        raise ConfigError(
            f"a pipeline cannot be made from a {type(given).__name__}",
            allowed="a DiffusionConfig, or the path of a diffusers folder or .safetensors file",
            fix='DiffusionConfig(model_path="…")',
        )
    if twice := [name for name in options if name in given]:
        raise ConfigError(f"{twice[0]} is given twice", fix="leave one of them out")
    return DiffusionConfig(**given, **options)
