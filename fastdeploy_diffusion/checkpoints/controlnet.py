"""Opens ControlNets: diffusers' folders, and single files with the names of the original code."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.checkpoints.stacks import check_stacks
from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource, collect_tensors
from fastdeploy_diffusion.checkpoints.weight_file import WeightFile
from fastdeploy_diffusion.checkpoints.weight_files import open_weight_file, open_weight_files
from fastdeploy_diffusion.errors import BadInputError, CheckpointError, UnsupportedModelError
from fastdeploy_diffusion.families.keys.ldm import LDM_CONTROLNET_RULES
from fastdeploy_diffusion.families.networks.controlnet import CONTROLNET, ControlNetConfig
from fastdeploy_diffusion.families.registry import FAMILIES
from fastdeploy_diffusion.families.sd import DENOISER
from fastdeploy_diffusion.json_object import read_json_object
from fastdeploy_diffusion.model_files import find_file
from fastdeploy_diffusion.shown import show

PREFIX = "control_model."
_ALLOWED = "a diffusers folder with config.json, or a file of weights with control_model.* in it"


@dataclass(frozen=True)
class ControlNetCheckpoint:
    """An opened ControlNet; weights stay on disk until they are read."""

    path: Path
    config: ControlNetConfig
    source: TensorSource

    @property
    def name(self) -> str:
        """Its name in metadata."""
        return self.path.absolute().name


def open_controlnet(path: Path) -> ControlNetCheckpoint:
    """Open a ControlNet; headers and config are read and checked.

    Raises:
        CheckpointError: It is missing, damaged or something else.
        UnsupportedModelError: A ControlNet of a kind that is not implemented.
    """
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist", allowed=_ALLOWED, fix="correct the path")
    return _open_file(path)


def _open_folder(path: Path) -> ControlNetCheckpoint:
    file = path / "config.json"
    if not find_file(file):
        raise CheckpointError(f"{path} has no config.json", allowed=_ALLOWED)
    raw = read_json_object(file)
    if raw.get("_class_name") != CONTROLNET.name:
        raise UnsupportedModelError(
            f"{file}: _class_name is {show(raw.get('_class_name'))}",
            allowed=CONTROLNET.name,
            fix="give the folder of a ControlNet of Stable Diffusion 1.x, 2.x or XL",
        )
    try:
        config = ControlNetConfig.from_dict(raw)
    except BadInputError as error:
        raise type(error)(
            f"{file}: {error.problem}", allowed=error.allowed, fix=error.fix
        ) from error
    files = open_weight_files(path, CONTROLNET.stem, None, path.resolve())
    return _join(path, config, collect_tensors(path, files, CONTROLNET.rules))


def _open_file(path: Path) -> ControlNetCheckpoint:
    file = open_weight_file(path, _ALLOWED, "a ControlNet")
    others = [name for name in file.tensors if not name.startswith(PREFIX)]
    if others:
        raise CheckpointError(
            f"{path} holds {len(others)} tensors that are no ControlNet's: "
            f"{', '.join(sorted(others)[:5])}",
            allowed=f"{PREFIX}* alone",
            fix="give the ControlNet's own file, or a diffusers folder of it",
        )
    source = collect_tensors(path, [file], LDM_CONTROLNET_RULES, PREFIX)
    return _join(path, _find_config(file), source)


def _find_config(file: WeightFile) -> ControlNetConfig:
    """Take the config of the published UNet with the file's width of text."""
    known = {*(each.name for each in fields(ControlNetConfig)), *ControlNetConfig.only}
    allowed = []
    for family in FAMILIES.values():
        for layout in family.layouts:
            if layout.prefixes.get("unet") != DENOISER or family.is_refiner:
                continue
            (name, width, _), *_ = layout.widths
            tensor = file.tensors.get(PREFIX + name.removeprefix(DENOISER))
            if tensor is not None and tensor.shape[1:2] == (width,):
                raw: dict[str, Any] = dict(layout.configs["unet"])
                return ControlNetConfig.from_dict({key: raw[key] for key in raw if key in known})
            allowed.append(f"{width} ({family.title})")
    raise UnsupportedModelError(
        f"{file.path} has cross-attentions of no published width, or none",
        allowed=", ".join(allowed),
        fix="convert other ControlNets to a diffusers folder, whose config gives the sizes",
    )


def _join(path: Path, config: ControlNetConfig, source: TensorSource) -> ControlNetCheckpoint:
    check_stacks(path, config, source)
    return ControlNetCheckpoint(path, config, source)
