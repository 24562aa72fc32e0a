"""Checkpoints in the folder layout of diffusers: ``model_index.json`` and a folder a component."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastdeploy_diffusion.checkpoints.checkpoint import WEIGHT_COMPONENTS, Checkpoint, Family
from fastdeploy_diffusion.checkpoints.diffusers_keys import DIFFUSERS_RULES
from fastdeploy_diffusion.checkpoints.key_rules import collect_tensors
from fastdeploy_diffusion.checkpoints.weight_files import open_weight_files
from fastdeploy_diffusion.errors import CheckpointError, UnsupportedModelError
from fastdeploy_diffusion.hints import find_hint
from fastdeploy_diffusion.json_object import read_json_object
from fastdeploy_diffusion.show_value import show_value

_SD = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
_FLUX = "FluxPipeline"
_PIPELINES = (*_SD, _FLUX)

# Component → the one class that is implemented. Schedulers and tokenizers are checked by their own
# readers, which know what they implement.
_SD_CLASSES: Mapping[str, str] = {
    "text_encoder": "CLIPTextModel",
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
}
CLASSES: Mapping[Family, Mapping[str, str]] = {
    "sd1": _SD_CLASSES,
    "sd2": _SD_CLASSES,
    "sdxl": {**_SD_CLASSES, "text_encoder_2": "CLIPTextModelWithProjection"},
    "flux": {
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "T5EncoderModel",
        "transformer": "FluxTransformer2DModel",
        "vae": "AutoencoderKL",
    },
}
STEMS: Mapping[str, str] = {
    "text_encoder": "model",
    "text_encoder_2": "model",
    "transformer": "diffusion_pytorch_model",
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
}
_OTHER_COMPONENTS: Mapping[Family, tuple[str, ...]] = {
    "sd1": ("scheduler", "tokenizer"),
    "sd2": ("scheduler", "tokenizer"),
    "sdxl": ("scheduler", "tokenizer", "tokenizer_2"),
    "flux": ("scheduler", "tokenizer", "tokenizer_2"),
}
# Parts of published pipelines that judge the finished picture and take no part in making it.
_INERT_COMPONENTS = frozenset({"safety_checker", "feature_extractor"})


class DiffusersFolder(Checkpoint):
    """A folder with ``model_index.json``.

    All headers and configs are read here, so that a damaged folder fails at once.

    Args:
        path: The folder.
        variant: ``fp16`` and the like, None for the plain files; it holds for every component.

    Raises:
        CheckpointError: A file is missing, damaged or unsafe.
        UnsupportedModelError: A pipeline or component class that is not implemented.
    """

    def __init__(self, path: Path, variant: str | None) -> None:
        self.path = path
        index = read_json_object(path / "model_index.json")
        self.family = _tell_family(path, _read_pipeline_class(path, index))

        with_weights = WEIGHT_COMPONENTS[self.family]
        self.components = (*with_weights, *_OTHER_COMPONENTS[self.family])
        self.pipeline_options = MappingProxyType(
            _check_index(path, index, self.components, self.family)
        )
        self._configs = {
            "scheduler": read_json_object(path / "scheduler" / "scheduler_config.json"),
            **{name: read_json_object(path / name / "config.json") for name in with_weights},
        }
        root = path.resolve()
        self._sources = {
            name: collect_tensors(
                path / name,
                open_weight_files(path / name, STEMS[name], variant, root),
                DIFFUSERS_RULES[CLASSES[self.family][name]],
            )
            for name in with_weights
        }

    def folder(self, component: str) -> Path | None:
        """The folder of a component."""
        if component not in self.components:
            raise CheckpointError(
                f"{self.path}: no component {component!r}", allowed=", ".join(self.components)
            )
        return self.path / component


def _read_pipeline_class(path: Path, index: Mapping[str, Any]) -> str:
    name = index.get("_class_name")
    if name not in _PIPELINES:
        hint = find_hint(name) if isinstance(name, str) else None
        missing = f": {hint.missing}" if hint else ""
        raise UnsupportedModelError(
            f"{path / 'model_index.json'}: _class_name = {show_value(name)} is not implemented"
            f"{missing}",
            allowed=", ".join(_PIPELINES),
        )
    return str(name)


def _tell_family(path: Path, pipeline: str) -> Family:
    if pipeline == _FLUX:
        return "flux"
    unet_config = read_json_object(path / "unet" / "config.json")
    if pipeline == "StableDiffusionXLPipeline":
        return "sdxl"
    # What sets SD 2.x apart at every width, small test models included: the transformers' input
    # and output projections are linear layers, in SD 1.x they are 1×1 convolutions.
    return "sd2" if unet_config.get("use_linear_projection") else "sd1"


def _check_index(
    path: Path, index: Mapping[str, Any], components: tuple[str, ...], family: Family
) -> dict[str, Any]:
    """Check the components that the index names and return its other entries."""
    options: dict[str, Any] = {}
    present: dict[str, Any] = {}
    for key, value in index.items():
        if isinstance(value, list):
            # [null, null] stands for an optional component that this pipeline does without.
            if value != [None, None]:
                present[key] = value[-1] if value else None
        elif not key.startswith("_"):
            options[key] = value

    where = path / "model_index.json"
    if unknown := present.keys() - set(components) - _INERT_COMPONENTS:
        raise UnsupportedModelError(
            f"{where}: component {show_value(min(unknown))} is not implemented",
            allowed=", ".join((*components, *sorted(_INERT_COMPONENTS))),
        )
    if absent := [name for name in components if name not in present]:
        raise CheckpointError(
            f"{where} names no {', '.join(absent)}",
            allowed=f"all of {', '.join(components)}",
            fix="download or export the whole checkpoint folder again, with every component",
        )
    for name, class_name in CLASSES[family].items():
        if present[name] != class_name:
            raise UnsupportedModelError(
                f"{where}: {name} of class {show_value(present[name])} is not implemented",
                allowed=class_name,
                fix=f"give a checkpoint whose {name} is a {class_name}",
            )
    return options
