"""The configuration that ``--model`` and ``--config`` name."""

import os
import warnings
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.config.layers import preset_layer, preset_names
from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.suggest import did_you_mean

DEFAULT_PRESET = "shapes"


def preset_model(name: str) -> str | None:
    """Find the path of the model that comes with a preset; ``None`` if it has none."""
    path: str | None = preset_layer(name).values.get("model_path")
    return path


def load_config(model: str | None, file: str | None, **options: Any) -> DiffusionConfig:
    """Make the configuration of a command line.

    A preset's name always means the preset, not a folder of that name.

    Args:
        model: A preset, or the path of a checkpoint; ``None`` leaves it to the file, and without
            a file to the default preset.
        **options: Further options of the configuration; None means "not given".

    Raises:
        ConfigError: There is no such preset or file, the preset brings no model, or an option is
            refused.
    """
    if model is None:
        preset = DEFAULT_PRESET if file is None else None
        return DiffusionConfig.load(preset=preset, yaml=file, cli=options)
    presets = preset_names()
    if model not in presets:
        _check_is_path(model, presets)
        return DiffusionConfig.load(yaml=file, cli={**options, "model_path": model})
    if Path(model).exists():
        warnings.warn(
            f"--model {model} means the preset; for {Path(model).absolute()} write ./{model}",
            UserWarning,
            stacklevel=2,
        )
    path = preset_model(model)
    if path is None and file is None:
        raise ConfigError(
            f"the preset {model!r} holds a model's usual settings, but no model",
            allowed="a preset with a model (see `fastdeploy-diffusion info`), a diffusers folder "
            "or a .safetensors file",
            fix=f"--model FOLDER, or a --config file with 'preset: {model}' and 'model_path: …'",
        )
    # The model that was asked for here wins over the file's, which wins over the preset's.
    return DiffusionConfig.load(preset=model, yaml=file, cli={**options, "model_path": path})


def _check_is_path(model: str, presets: tuple[str, ...]) -> None:
    """Refuse a bare word that names nothing; paths are checked when the checkpoint is opened."""
    path = Path(model)
    # Opening the checkpoint explains a broken link better, too; a name may be too long to ask.
    if model and path.name == model and not path.suffix and not os.path.lexists(model):
        raise ConfigError(
            f"--model {model[:200]}: there is no such preset, and no such folder in {Path.cwd()}",
            allowed=f"a preset ({', '.join(presets)}), a diffusers folder or a .safetensors file",
            fix=did_you_mean(model, presets),
        )
