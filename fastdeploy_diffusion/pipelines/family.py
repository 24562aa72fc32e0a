"""The families of checkpoints, and which pipeline draws with each."""

from collections.abc import Mapping

from fastdeploy_diffusion.checkpoints import Checkpoint, open_checkpoint
from fastdeploy_diffusion.checkpoints.checkpoint import Family
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import UnsupportedModelError

PIPELINE_NAMES: Mapping[Family, str] = {
    "sd1": "SDPipeline",
    "sd2": "SDPipeline",
    "sdxl": "SDXLPipeline",
    "flux": "FluxPipeline",
}


def open_for(pipeline: str, config: DiffusionConfig) -> Checkpoint:
    """Open the checkpoint that a configuration names for one of ``PIPELINE_NAMES``.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or incomplete.
        UnsupportedModelError: It is of a family that the pipeline does not draw with.
    """
    checkpoint = open_checkpoint(config.model_path, variant=config.variant)
    right = PIPELINE_NAMES[checkpoint.family]
    if right != pipeline:
        own = [family for family, name in PIPELINE_NAMES.items() if name == pipeline]
        raise UnsupportedModelError(
            f"{checkpoint.path} is a checkpoint of the family {checkpoint.family}",
            allowed=f"for {pipeline}, {', '.join(own)}",
            fix=f"open it with {right}",
        )
    return checkpoint
