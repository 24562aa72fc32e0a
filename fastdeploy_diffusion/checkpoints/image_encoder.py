"""Opens CLIP's vision towers: folders that transformers wrote, as an IP-Adapter's image_encoder."""

from dataclasses import dataclass
from pathlib import Path

from fastdeploy_diffusion.checkpoints.stacks import check_stacks
from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource, collect_tensors
from fastdeploy_diffusion.checkpoints.weight_files import open_weight_files
from fastdeploy_diffusion.errors import BadInputError, CheckpointError, UnsupportedModelError
from fastdeploy_diffusion.families.networks.clip import CLIP_VISION, CLIPVisionConfig
from fastdeploy_diffusion.json_object import read_json_object
from fastdeploy_diffusion.model_files import find_file
from fastdeploy_diffusion.shown import show

_ALLOWED = (
    f"a folder with the config.json and model.safetensors of a {CLIP_VISION.name}, as the folder "
    "image_encoder that IP-Adapters are published with"
)


@dataclass(frozen=True)
class ImageEncoderCheckpoint:
    """An opened vision tower; weights stay on disk until they are read."""

    path: Path
    config: CLIPVisionConfig
    source: TensorSource


def open_image_encoder(path: Path) -> ImageEncoderCheckpoint:
    """Open a vision tower; headers and config are read and checked.

    Raises:
        CheckpointError: It is missing, damaged, or saved as a pickle alone.
        UnsupportedModelError: Another kind of network, or of a kind that is not implemented.
    """
    file = path / "config.json"
    if not path.exists():
        raise CheckpointError(f"{path} does not exist", allowed=_ALLOWED, fix="correct the path")
    if not find_file(file):
        raise CheckpointError(f"{path} has no config.json", allowed=_ALLOWED)
    raw = read_json_object(file)
    if raw.get("architectures") != [CLIP_VISION.name]:
        raise UnsupportedModelError(
            f"{file}: architectures is {show(raw.get('architectures'))}", allowed=_ALLOWED
        )
    try:
        config = CLIPVisionConfig.from_dict(raw)
    except BadInputError as error:
        raise type(error)(
            f"{file}: {error.problem}", allowed=error.allowed, fix=error.fix
        ) from error
    files = open_weight_files(path, CLIP_VISION.stem, None, path.resolve())
    source = collect_tensors(path, files, CLIP_VISION.rules)
    check_stacks(path, config, source)
    return ImageEncoderCheckpoint(path, config, source)
