"""Opens the pipeline of a checkpoint's family from a configuration."""

from typing import Any

from fastdeploy_diffusion.checkpoints import Checkpoint, open_configured
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import ConfigError, UnsupportedModelError
from fastdeploy_diffusion.families.registry import FAMILIES
from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor


def open_pipeline(
    config: DiffusionConfig, checkpoint: Checkpoint | None = None
) -> DiffusionPredictor[Any]:
    """Open the checkpoint that a configuration names with the pipeline of its family.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or incomplete.
        DiffusionError: As the family's pipeline.
    """
    if checkpoint is None:
        checkpoint = open_configured(config)
    pipeline: DiffusionPredictor[Any] = checkpoint.family.pipeline_class(
        config, checkpoint=checkpoint
    )
    return pipeline


def open_for(
    pipeline: str, config: DiffusionConfig, checkpoint: Checkpoint | None
) -> tuple[DiffusionConfig, Checkpoint]:
    """Open the checkpoint of a pipeline, if it is not open already.

    A bundle fills in the options that it was made with.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or incomplete.
        UnsupportedModelError: It is of a family that the pipeline does not draw with.
        ConfigError: A refiner is given, and the family has none.
    """
    if checkpoint is None:
        checkpoint = open_configured(config)
    family = checkpoint.family
    if family.pipeline_name != pipeline:
        own = [name for name, each in FAMILIES.items() if each.pipeline_name == pipeline]
        raise UnsupportedModelError(
            f"{checkpoint.path} is a checkpoint of the family {family.name}",
            allowed=f"for {pipeline}, {', '.join(own)}",
            fix=f"open it with {family.pipeline_name}",
        )
    if config.refiner is not None and not family.has_refiner:
        raise ConfigError(
            f"refiner is given, which {family.title} does not have",
            allowed="a refiner with a base model of SDXL",
            fix="leave refiner out",
        )
    return checkpoint.complete(config), checkpoint
