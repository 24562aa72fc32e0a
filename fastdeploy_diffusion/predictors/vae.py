"""The sub-predictor that turns latents into pictures."""

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.families.networks.autoencoder import AutoencoderKLConfig
from fastdeploy_diffusion.lazy import defer
from fastdeploy_diffusion.predictors.open_component import open_component
from fastdeploy_diffusion.runtime.program import Signature, TensorSpec
from fastdeploy_diffusion.runtime.session import Session
from fastdeploy_diffusion.size_range import Size, multiply


class VAEDecoder:
    """The autoencoder's decoder.

    Raises:
        UnsupportedModelError: The autoencoder's config is not implemented.
        EngineUnavailableError: The engine asked for cannot run here.
    """

    def __init__(self, checkpoint: Checkpoint, config: DiffusionConfig) -> None:
        self.config = checkpoint.read_network("vae", AutoencoderKLConfig.from_dict)
        self.component = open_component(
            checkpoint,
            config,
            "vae",
            self.config,
            wrap=defer("fastdeploy_diffusion.models.components:LatentDecoder"),
            unread=("encoder.", "quant_conv."),
        )

    def signature(self, height: Size, width: Size, batch: Size = None) -> Signature:
        """Make the signature for latents of a size, and a number of pictures."""
        latents = (batch, self.config.latent_channels, height, width)
        pixels = (multiply(size, self.config.downscale) for size in (height, width))
        images = (batch, self.config.out_channels, *pixels)
        return Signature(
            (TensorSpec("latents", latents, "float32"),), (TensorSpec("images", images, "float32"),)
        )

    def decode(self, session: Session, latents: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Decode (B, C, H, W) scaled latents to (B, 3, 8H, 8W) images in about [-1, 1].

        ``session`` is that of the component. One picture at a time: a decoder needs far more memory
        than a step of the denoiser.
        """
        return np.concatenate([session.run(latents=each[None])["images"] for each in latents])
