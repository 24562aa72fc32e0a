"""A tiny autoencoder in a folder of its own, as diffusers saves it."""

from pathlib import Path

from fastdeploy_diffusion.checkpoints.tensor_source import collect_tensors
from fastdeploy_diffusion.checkpoints.weight_files import open_weight_files
from fastdeploy_diffusion.errors import BadInputError, CheckpointError
from fastdeploy_diffusion.families.networks.autoencoder_tiny import (
    AUTOENCODER_TINY,
    AutoencoderTinyConfig,
)
from fastdeploy_diffusion.json_object import read_json_object


class TinyVAEFolder:
    """``config.json`` and weights of an ``AutoencoderTiny``; the weights stay on disk.

    Attributes:
        config: Its config.
        tensors: Its weights.

    Raises:
        CheckpointError: A file is missing, damaged or unsafe.
        UnsupportedModelError: An option that is not implemented.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        file, name = self.path / "config.json", AUTOENCODER_TINY.name
        raw = read_json_object(file)
        if raw.get("_class_name", name) != name:
            raise CheckpointError(
                f"{file}: _class_name = {raw['_class_name']!r}",
                allowed=name,
                fix="give the folder of a tiny VAE that was trained for this model, for Stable "
                "Diffusion 1.x as madebyollin/taesd",
            )
        try:
            self.config = AutoencoderTinyConfig.from_dict(raw)
        except BadInputError as error:
            raise type(error)(
                f"{file}: {error.problem}", allowed=error.allowed, fix=error.fix
            ) from error
        files = open_weight_files(self.path, AUTOENCODER_TINY.stem, None, self.path.resolve())
        self.tensors = collect_tensors(self.path, files, AUTOENCODER_TINY.rules)
