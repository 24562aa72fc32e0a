"""The one way from a configuration to the pipeline of the checkpoint's family."""

from collections.abc import Callable, Mapping

from fastdeploy_diffusion.checkpoints import open_checkpoint
from fastdeploy_diffusion.checkpoints.checkpoint import Family
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.pipelines.flux import FluxPipeline
from fastdeploy_diffusion.pipelines.sd import SDPipeline
from fastdeploy_diffusion.pipelines.sdxl import SDXLPipeline
from fastdeploy_diffusion.predictors.checkpoint_predictor import CheckpointPredictor

PIPELINES: Mapping[Family, Callable[[DiffusionConfig], CheckpointPredictor]] = {
    "sd1": SDPipeline,
    "sd2": SDPipeline,
    "sdxl": SDXLPipeline,
    "flux": FluxPipeline,
}


def open_pipeline(config: DiffusionConfig) -> CheckpointPredictor:
    """Open the checkpoint that a configuration names with the pipeline of its family.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or incomplete.
        DiffusionError: As the family's pipeline.
    """
    checkpoint = open_checkpoint(config.model_path, variant=config.variant)
    return PIPELINES[checkpoint.family](config)
