"""The layers a configuration is merged from: preset < YAML < keywords < command line."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from fastdeploy_diffusion.config.yaml_loader import YamlDocument, load_yaml
from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.suggest import did_you_mean

PATH_OPTIONS = (
    "model_path",
    "tokenizer_path",
    "tiny_vae_path",
    "cache_dir",
    "calibration_prompts",
)
LIST_OPTIONS = ("controlnets", "ip_adapters", "adapters")
SECTION_OPTIONS = ("text_encoder", "text_encoder_2", "denoiser", "vae")
_PATH_KEYS = ("path", "image_encoder_path", "model_path")  # of their sections


@dataclass(frozen=True)
class Layer:
    """Options from one source, which can say where each of them was given.

    Attributes:
        values: Option name → value; sections are nested mappings.
        name: Of the source (``"command line"``); empty for keywords and users' files.
        document: The YAML file that the values come from, if they do.
    """

    values: Mapping[str, Any]
    name: str = ""
    document: YamlDocument | None = None

    def locate(self, path: Sequence[str], *, key: bool) -> str:
        """Describe where an option (its key or value) was given, as the start of a message."""
        place = self.document.locate(path, key=key) if self.document else self.name
        return f"{place}: " if place else ""

    def gives(self, path: Sequence[str]) -> bool:
        """Tell whether this layer has the option at ``path``."""
        value: Any = self.values
        for part in path:
            if isinstance(value, BaseModel):
                value = value.model_dump(exclude_unset=True)
            if isinstance(value, list | tuple) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
                continue
            if not isinstance(value, Mapping) or part not in value:
                return False
            value = value[part]
        return True


def keyword_layer(options: Mapping[str, Any], name: str = "") -> Layer:
    """Make a layer of keywords or command-line flags, where None means "not given"."""
    return Layer(_drop_none(options), name)


def yaml_layer(path: str | os.PathLike[str], name: str = "") -> Layer:
    """Make a layer of a YAML file; its relative paths start at the file's own folder.

    Raises:
        ConfigError: The file cannot be read or is not strict YAML (see `load_yaml`).
    """
    document = load_yaml(path)
    folder = os.path.dirname(os.path.abspath(document.file))
    values = dict(document.data)
    for option in PATH_OPTIONS:
        value = values.get(option)
        if isinstance(value, str) and value and not value.startswith("~"):
            values[option] = os.path.normpath(os.path.join(folder, value))
    for option in LIST_OPTIONS:
        if option in values:
            values[option] = _resolve_list(values[option], folder)
    if "refiner" in values:
        (values["refiner"],) = _resolve_list([values["refiner"]], folder)
    for option in SECTION_OPTIONS:
        if isinstance(values.get(option), Mapping):
            (values[option],) = _resolve_list([values[option]], folder)
    return Layer(values, name, document)


def _resolve_list(value: Any, folder: str) -> Any:
    """Resolve the relative paths of a list of options, or of paths alone."""

    def resolve(path: Any) -> Any:
        is_relative = isinstance(path, str) and path and not path.startswith("~")
        return os.path.normpath(os.path.join(folder, path)) if is_relative else path

    if not isinstance(value, list):
        return value
    return [
        {key: resolve(own) if key in _PATH_KEYS else own for key, own in each.items()}
        if isinstance(each, Mapping)
        else resolve(each)
        for each in value
    ]


def preset_layer(name: str, place: str = "") -> Layer:
    """Make a layer of a preset that ships with the package.

    Args:
        name: The preset's file name in ``fastdeploy_diffusion/configs`` without ``.yaml``.
        place: Where the name was given, as the start of a message.

    Raises:
        ConfigError: There is no such preset.
    """
    if not isinstance(name, str):
        raise ConfigError(
            f"{place}preset is of type {type(name).__name__}",
            allowed="the name of a preset",
            fix="write it as text",
        )
    presets = find_presets()
    if name not in presets:
        raise ConfigError(
            f"{place}there is no preset {name!r}",
            allowed=", ".join(presets),
            fix=did_you_mean(name, presets) or "to read a file of your own, give it as YAML",
        )
    return yaml_layer(presets[name], f"preset {name!r}")


def preset_names() -> tuple[str, ...]:
    """Name the presets that ship with the package."""
    return tuple(find_presets())


def merge_layers(layers: Sequence[Layer]) -> dict[str, Any]:
    """Merge layers, section by section; a later layer wins.

    Args:
        layers: Lowest precedence first.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        # A layer's choice of engine overrides that of the layers below in either spelling.
        if "engine" in layer.values:
            merged.pop("use_tensorrt", None)
        if layer.values.get("use_tensorrt") is True:
            merged.pop("engine", None)
        _merge_into(merged, layer.values)
    return merged


def find_presets() -> dict[str, Path]:
    """Find the file of each preset, by name."""
    folder = Path(str(resources.files("fastdeploy_diffusion.configs")))
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def _merge_into(merged: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        below = merged.get(key)
        if not isinstance(below, Mapping):
            merged[key] = value
        elif isinstance(value, Mapping | BaseModel):
            above = value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
            section = dict(below)
            _merge_into(section, above)
            merged[key] = section
        elif value is not None:  # a section whose lines are all commented out reads as None
            merged[key] = value


def _drop_none(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _drop_none(value) if isinstance(value, Mapping) else value
        for key, value in options.items()
        if value is not None
    }
