"""The one way from a configuration to the pipeline of the checkpoint's family."""

from collections.abc import Callable, Mapping

from fastdeploy_diffusion.checkpoints import open_checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.pipelines.flux import FluxPipeline
from fastdeploy_diffusion.pipelines.sd import SDPipeline
from fastdeploy_diffusion.predictors.checkpoint_predictor import CheckpointPredictor

PIPELINES: Mapping[str, Callable[[DiffusionConfig], CheckpointPredictor]] = {
    "sd1": SDPipeline,
    "sd2": SDPipeline,
    "flux": FluxPipeline,
}


def open_pipeline(config: DiffusionConfig) -> CheckpointPredictor:
    """Open the checkpoint that a configuration names with the pipeline of its family.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or incomplete.
        UnsupportedModelError: No pipeline draws with its family; or as the family's pipeline.
        DiffusionError: As the family's pipeline.
    """
    checkpoint = open_checkpoint(config.model_path, variant=config.variant)
    if checkpoint.family not in PIPELINES:
        raise UnsupportedModelError(
            f"{checkpoint.path} is a checkpoint of the family {checkpoint.family}, which no "
            "pipeline of this version draws with",
            allowed=f"{', '.join(PIPELINES)}: Stable Diffusion 1.x and 2.x, and Flux",
            fix="give a checkpoint of one of these families",
        )
    return PIPELINES[checkpoint.family](config)
