"""Opens IP-Adapters: single files with the names of the original code, which diffusers reads."""

import re
from dataclasses import dataclass
from pathlib import Path

from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource, collect_tensors
from fastdeploy_diffusion.checkpoints.weight_file import WeightFile
from fastdeploy_diffusion.checkpoints.weight_files import WEIGHT_SUFFIXES, open_weight_file
from fastdeploy_diffusion.errors import CheckpointError, UnsupportedModelError
from fastdeploy_diffusion.families.networks.ip_adapter import (
    BASE_TOKENS,
    HEAD_DIM,
    IPAdapterConfig,
    Resampler,
)

_ALLOWED = "a file of weights with image_proj.* and ip_adapter.N.to_k_ip/to_v_ip.weight"
_SUPPORTED = "the kinds base and plus, for SD 1.x, SD 2.x and SDXL"
_PROJECTION = "image_proj."
_ATTENTIONS = re.compile(r"ip_adapter\.(\d+)\.to_k_ip\.weight")
_LAYERS = re.compile(r"image_proj\.layers\.(\d+)\.0\.to_q\.weight")


@dataclass(frozen=True)
class IPAdapterCheckpoint:
    """An opened IP-Adapter; weights stay on disk until they are read."""

    path: Path
    config: IPAdapterConfig
    source: TensorSource

    @property
    def name(self) -> str:
        """Its name in metadata."""
        return self.path.name


def open_ip_adapter(path: Path) -> IPAdapterCheckpoint:
    """Open an IP-Adapter; its header is read and checked.

    Raises:
        CheckpointError: It is missing, damaged or something else.
        UnsupportedModelError: An IP-Adapter of a kind that is not implemented.
    """
    if path.is_dir():
        found = sorted(each.name for each in path.iterdir() if each.suffix in WEIGHT_SUFFIXES)
        raise CheckpointError(
            f"{path} is a folder",
            allowed=_ALLOWED,
            fix=f"give a file in it: {', '.join(found)}" if found else "give the adapter's file",
        )
    if not path.exists():
        raise CheckpointError(f"{path} does not exist", allowed=_ALLOWED, fix="correct the path")
    file = open_weight_file(path, _ALLOWED, "an IP-Adapter")
    _check_kind(file)
    return IPAdapterCheckpoint(path, _read_config(file), collect_tensors(path, [file], ()))


def _check_kind(file: WeightFile) -> None:
    names = file.tensors
    if other := _name_other_kind(set(names)):
        raise UnsupportedModelError(
            f"{file.path} is {other}: it is not supported", allowed=_SUPPORTED
        )
    others = [name for name in names if not name.startswith((_PROJECTION, "ip_adapter."))]
    if others or not any(map(_ATTENTIONS.fullmatch, names)):
        raise CheckpointError(
            f"{file.path} holds tensors that are no IP-Adapter's: "
            f"{', '.join(sorted(others or names)[:5])}",
            allowed=_ALLOWED,
            fix="give the adapter's own file",
        )


def _name_other_kind(names: set[str]) -> str:
    """Name the kind of an adapter that is not implemented; empty for others."""
    if any(name.startswith(("double_blocks.", "single_blocks.")) for name in names):
        return "an IP-Adapter of Flux"
    is_face_full = f"{_PROJECTION}proj.3.weight" in names
    has_layers = f"{_PROJECTION}proj.0.weight" in names
    marks = (f"{_PROJECTION}perceiver_resampler.", "_lora.")
    if (has_layers and not is_face_full) or any(mark in name for name in names for mark in marks):
        return "a FaceID adapter, which reads vectors of a network that recognises faces"
    return "a full-face IP-Adapter" if is_face_full else ""


def _read_config(file: WeightFile) -> IPAdapterConfig:
    numbers = sorted(
        int(match[1]) for match in map(_ATTENTIONS.fullmatch, file.tensors) if match is not None
    )
    if numbers != list(range(1, 2 * len(numbers), 2)):
        raise CheckpointError(
            f"{file.path} has keys and values for the attentions {', '.join(map(str, numbers))}",
            allowed="1, 3, 5 …: each cross-attention of a UNet",
            fix="download it again",
        )
    keys = [_read_shape(file, f"ip_adapter.{number}.to_k_ip.weight", 2) for number in numbers]
    width = keys[0][1]
    widths = tuple(rows for rows, _ in keys)
    if f"{_PROJECTION}proj.weight" in file.tensors:
        _, embed_dim = _read_shape(file, f"{_PROJECTION}proj.weight", 2)
        return IPAdapterConfig(embed_dim, width, BASE_TOKENS, widths)
    _, tokens, hidden = _read_shape(file, f"{_PROJECTION}latents", 3)
    _, embed_dim = _read_shape(file, f"{_PROJECTION}proj_in.weight", 2)
    inner, _ = _read_shape(file, f"{_PROJECTION}layers.0.0.to_q.weight", 2)
    ff, _ = _read_shape(file, f"{_PROJECTION}layers.0.1.1.weight", 2)
    if inner % HEAD_DIM:
        raise CheckpointError(
            f"{file.path}: its resampler has queries of width {inner}",
            allowed=f"a multiple of {HEAD_DIM}, the width of a head",
            fix="download it again",
        )
    layers = sum(1 for each in map(_LAYERS.fullmatch, file.tensors) if each)
    return IPAdapterConfig(embed_dim, width, tokens, widths, Resampler(hidden, inner, ff, layers))


def _read_shape(file: WeightFile, name: str, axes: int) -> tuple[int, ...]:
    found = file.tensors.get(name)
    if found is None or len(found.shape) != axes or 0 in found.shape:
        what = "is missing" if found is None else f"has the shape {found.shape}"
        raise CheckpointError(
            f"{file.path}: {name} {what}",
            allowed="the tensors of an IP-Adapter of the kind base or plus",
            fix="download it again",
        )
    return found.shape
