"""The pipeline of a command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.registry import create_engine

if TYPE_CHECKING:
    from fastdeploy_diffusion.pipelines.sd import SDPipeline


def open_pipeline(config: DiffusionConfig) -> SDPipeline:
    """Open the checkpoint that a configuration names.

    Raises:
        EngineUnavailableError: Paddle, in which every network is defined, is not installed; or
            what was asked for cannot run here.
        DiffusionError: As `SDPipeline`.
    """
    require_paddle()
    from fastdeploy_diffusion.pipelines.sd import SDPipeline

    return SDPipeline(config)


def require_paddle() -> None:
    """Refuse to go on without Paddle, in which every network is defined.

    Raises:
        EngineUnavailableError: It is not installed; the message says what installs it.
    """
    create_engine("paddle").require(BuildSpec(Device("cpu")))
