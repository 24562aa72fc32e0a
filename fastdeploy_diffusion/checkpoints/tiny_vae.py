"""Opens tiny autoencoders: diffusers' folders, and decoders with the names of the original code."""

import re
from dataclasses import dataclass
from pathlib import Path

from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource, collect_tensors
from fastdeploy_diffusion.checkpoints.weight_files import open_weight_file, open_weight_files
from fastdeploy_diffusion.errors import BadInputError, CheckpointError
from fastdeploy_diffusion.families.networks.autoencoder_tiny import (
    AUTOENCODER_TINY,
    AutoencoderTinyConfig,
)
from fastdeploy_diffusion.json_object import read_json_object

_ALLOWED = (
    "a folder with config.json and weights of an AutoencoderTiny, or a .safetensors or .pth file "
    "with the original names of its decoder: 1.weight, 3.conv.0.weight …, bare or behind decoder."
)
_DECODER, _ENCODER = "decoder.", "encoder."
_NAME = re.compile(r"(\d+)\.((?:conv\.\d+\.)?(?:weight|bias))")


@dataclass(frozen=True)
class TinyVAECheckpoint:
    """An opened tiny autoencoder; weights stay on disk until they are read.

    Args:
        tensors: Under the names of diffusers. Of an original file, those of the decoder alone.
    """

    path: Path
    config: AutoencoderTinyConfig
    tensors: TensorSource


def open_tiny_vae(path: Path) -> TinyVAECheckpoint:
    """Open a tiny autoencoder; headers and config are read and checked.

    Raises:
        CheckpointError: It is missing, damaged or something else.
        UnsupportedModelError: An option or a width that is not implemented.
    """
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist", allowed=_ALLOWED, fix="correct the path")
    return _open_file(path)


def _open_folder(path: Path) -> TinyVAECheckpoint:
    file, name = path / "config.json", AUTOENCODER_TINY.name
    raw = read_json_object(file)
    if raw.get("_class_name", name) != name:
        raise CheckpointError(
            f"{file}: _class_name = {raw['_class_name']!r}",
            allowed=name,
            fix="give the folder of a tiny VAE that was trained for this model, for Stable "
            "Diffusion 1.x as madebyollin/taesd",
        )
    try:
        config = AutoencoderTinyConfig.from_dict(raw)
    except BadInputError as error:
        raise type(error)(
            f"{file}: {error.problem}", allowed=error.allowed, fix=error.fix
        ) from error
    files = open_weight_files(path, AUTOENCODER_TINY.stem, None, path.resolve())
    return TinyVAECheckpoint(path, config, collect_tensors(path, files, AUTOENCODER_TINY.rules))


def _open_file(path: Path) -> TinyVAECheckpoint:
    """Open a decoder of the original code, whose layers count the limiter before them as well."""
    file = open_weight_file(path, _ALLOWED, "a tiny VAE")
    stored = {
        name.removeprefix(_DECODER): name for name in file.tensors if not name.startswith(_ENCODER)
    }
    if not stored or "0.weight" in stored:
        raise CheckpointError(
            f"{path} holds the encoder of a tiny VAE",
            allowed=_ALLOWED,
            fix="give the file of its decoder, for example taesd_decoder.safetensors",
        )
    matches = {name: _NAME.fullmatch(name) for name in stored}
    others = [stored[name] for name, match in matches.items() if match is None]
    if others or "1.weight" not in stored:
        raise CheckpointError(
            f"{path} holds no decoder of a tiny VAE: "
            + (f"it has {', '.join(sorted(others)[:5])}" if others else "1.weight is missing"),
            allowed=_ALLOWED,
            fix="give its folder if diffusers saved it, and else the decoder's own file",
        )
    names = {
        f"decoder.layers.{int(match[1]) - 1}.{match[2]}": stored[name]
        for name, match in matches.items()
        if match
    }
    tensors = collect_tensors(path, [file], ()).rename(names)
    return TinyVAECheckpoint(path, _find_config(path, tensors), tensors)


def _find_config(path: Path, tensors: TensorSource) -> AutoencoderTinyConfig:
    """Find the config in names and shapes: convolutions without bias lie between resolutions."""
    first = tensors.shape("decoder.layers.0.weight")
    widths, blocks = [first[0]], [0]
    for index in sorted({int(name.split(".")[2]) for name in tensors} - {0}):
        layer = f"decoder.layers.{index}"
        if f"{layer}.conv.0.weight" in tensors:
            blocks[-1] += 1
        elif f"{layer}.bias" not in tensors:
            widths.append(tensors.shape(f"{layer}.weight")[0])
            blocks.append(0)
    try:
        return AutoencoderTinyConfig.from_dict(
            {
                "latent_channels": first[1] if len(first) > 1 else 0,
                "decoder_block_out_channels": widths,
                "encoder_block_out_channels": widths,
                "num_decoder_blocks": blocks,
                "num_encoder_blocks": [0] * len(blocks),
            }
        )
    except BadInputError as error:
        raise type(error)(f"{path}: {error.problem}", allowed=error.allowed) from error
