"""The pipeline of a command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastdeploy_diffusion.checkpoints import Checkpoint, open_configured
from fastdeploy_diffusion.cli.progress import show_progress
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.registry import create_engine

if TYPE_CHECKING:
    from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor


def open_pipeline(
    config: DiffusionConfig, checkpoint: Checkpoint | None = None
) -> DiffusionPredictor[Any]:
    """Open the checkpoint that a configuration names with the pipeline of its family.

    Raises:
        EngineUnavailableError: Paddle, in which every network is defined, is not installed; or
            the engine asked for cannot run here.
        DiffusionError: As the pipeline.
    """
    # Errors of the checkpoint come before Paddle is imported, which takes seconds.
    if checkpoint is None:
        checkpoint = open_configured(config)
    if not checkpoint.is_built:
        require_paddle()
    from fastdeploy_diffusion.pipelines import opening

    return opening.open_pipeline(config, checkpoint)


def quantize_first(pipeline: DiffusionPredictor[Any]) -> None:
    """Quantize what is in int8, if it is not yet, with progress on stderr.

    Raises:
        DiffusionError: As the pipeline's ``quantize``.
    """
    with show_progress("calibrating") as show:
        pipeline.quantize(show)


def require_paddle() -> None:
    """Refuse to go on without Paddle, in which every network is defined.

    Raises:
        EngineUnavailableError: It is not installed; the message says what installs it.
    """
    create_engine("paddle").require_run(BuildSpec(Device("cpu")))
