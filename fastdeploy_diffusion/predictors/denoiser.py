"""The sub-predictor that is called at every step."""

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.engines.session import Session
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.models.unet_config import UNet2DConditionConfig
from fastdeploy_diffusion.predictors.build_cache import open_cache
from fastdeploy_diffusion.predictors.component import Component, spread
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.program import Signature, TensorSpec
from fastdeploy_diffusion.size_range import Size


class Denoiser:
    """The UNet of Stable Diffusion 1.x and 2.x.

    Args:
        checkpoint: Where config and weights come from.
        config: Engine, device and precision.

    Raises:
        UnsupportedModelError: The UNet's config is not implemented.
        EngineUnavailableError: The engine asked for cannot run here.
    """

    def __init__(self, checkpoint: Checkpoint, config: DiffusionConfig) -> None:
        self.config = checkpoint.read_config("unet", UNet2DConditionConfig.from_dict)
        self.component = Component(
            "denoiser",
            config.component("denoiser"),
            cpu_fallback=config.cpu_fallback,
            passes=config.passes,
            cache=open_cache(config),
            network=Network(
                lambda: UNet2DConditionModel(self.config),
                checkpoint.config("unet"),
                checkpoint.tensors("unet"),
            ),
            generators={"timestep": spread},
            rows=2,  # with guidance
        )

    def signature(self, height: Size, width: Size, tokens: int, batch: Size = None) -> Signature:
        """For latents of this size, texts of this length, and this many rows."""
        config = self.config
        return Signature(
            (
                TensorSpec("sample", (batch, config.in_channels, height, width), "float32"),
                TensorSpec("timestep", (batch,), "float32"),
                TensorSpec(
                    "encoder_hidden_states", (batch, tokens, config.context_dims[0]), "float32"
                ),
            ),
            (TensorSpec("prediction", (batch, config.out_channels, height, width), "float32"),),
        )

    def precompute(
        self,
        session: Session,
        timesteps: npt.NDArray[np.float32],
        encoder_hidden_states: npt.NDArray[np.float32],
    ) -> None:
        """Compute what stays the same over the steps, where a pass has taken it out of them.

        Args:
            session: That of the component.
            timesteps: All of the request, (S,).
            encoder_hidden_states: Conditioning, (B, T, D) float32.
        """
        session.precompute(timestep=timesteps, encoder_hidden_states=encoder_hidden_states)

    def predict(
        self,
        session: Session,
        sample: npt.NDArray[np.float32],
        timestep: float,
        encoder_hidden_states: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """Predict from (B, C, H, W) latents at one timestep, given (B, T, D) conditioning.

        ``session`` is that of the component.
        """
        return session.run(
            sample=sample,
            timestep=np.full(len(sample), timestep, np.float32),
            encoder_hidden_states=encoder_hidden_states,
        )["prediction"]
