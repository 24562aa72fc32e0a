"""The sub-predictor of a ControlNet, which runs before the UNet at every step."""

from functools import cached_property

from fastdeploy_diffusion.checkpoints.controlnet import ControlNetCheckpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.engines.accuracy import Generator
from fastdeploy_diffusion.families.networks.controlnet import CONTROLNET, PICTURE
from fastdeploy_diffusion.precision import is_quantized
from fastdeploy_diffusion.predictors.denoiser import (
    describe_inputs,
    describe_residuals,
    draw_conditions,
)
from fastdeploy_diffusion.predictors.open_component import open_network
from fastdeploy_diffusion.runtime.program import Signature, TensorSpec
from fastdeploy_diffusion.size_range import Size, multiply


class ControlNet:
    """A ControlNet of Stable Diffusion 1.x, 2.x or XL.

    Args:
        index: In the configuration.
        name: In reports.

    Raises:
        EngineUnavailableError: The engine asked for cannot run here.
    """

    def __init__(
        self, checkpoint: ControlNetCheckpoint, config: DiffusionConfig, index: int, name: str
    ) -> None:
        self.checkpoint, self.config = checkpoint, checkpoint.config
        generators: dict[str, Generator] = {
            **draw_conditions(self.config),
            PICTURE: lambda random, shape: random.random(shape),
        }
        choice = config.choose_controlnet(index)
        self.component = open_network(
            name,
            CONTROLNET.layer,
            self.config,
            checkpoint.source,
            config,
            choice,
            is_calibrated=is_quantized(choice.precision),
            generators=generators,
            rows=2,  # with guidance
            role=CONTROLNET.role,
            count_activations=self.config.count_activations,
        )

    @cached_property
    def digest(self) -> str:
        """The digest of its weights."""
        return self.checkpoint.source.digest()

    def signature(self, height: Size, width: Size, tokens: Size, batch: Size = None) -> Signature:
        """Make the signature for latents of a size, texts of a length, and a number of rows."""
        config = self.config
        pixels = (multiply(size, config.downscale) for size in (height, width))
        inputs = (
            *describe_inputs(config, height, width, tokens, batch, text=config.reads_text),
            TensorSpec(PICTURE, (batch, 3, *pixels), "float32"),
        )
        residuals = describe_residuals(
            config, height, width, batch, pooled=config.global_pool_conditions
        )
        return Signature(inputs, residuals)
