"""The sub-predictor that turns pictures into latents."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.families.networks.autoencoder import (
    DECODER,
    ENCODER,
    AutoencoderKLConfig,
)
from fastdeploy_diffusion.lazy import defer
from fastdeploy_diffusion.noise import TorchGenerator
from fastdeploy_diffusion.predictors.component import Part
from fastdeploy_diffusion.predictors.open_component import open_component
from fastdeploy_diffusion.predictors.tiling import Tiling, TilingChoice
from fastdeploy_diffusion.runtime.program import Signature, TensorSpec
from fastdeploy_diffusion.runtime.session import Session
from fastdeploy_diffusion.size_range import Size, multiply

FloatArray = npt.NDArray[np.float32]


class VAEEncoder:
    """The autoencoder's encoder, for requests that give pictures.

    Args:
        network: The autoencoder's config.

    Raises:
        CheckpointError: The checkpoint has no weights for it, or the bundle no build.
        EngineUnavailableError: The engine asked for cannot run here.
    """

    def __init__(
        self, checkpoint: Checkpoint, config: DiffusionConfig, network: AutoencoderKLConfig
    ) -> None:
        source = checkpoint.tensors("vae")
        if not checkpoint.is_built and not any(name.startswith(ENCODER) for name in source):
            raise CheckpointError(
                f"{source.origin} has no weights of the autoencoder's encoder ({ENCODER[0]}…), "
                "which turns given pictures into latents",
                allowed="text_to_image",
                fix="take the vae that this model was published with",
            )
        self.config = network
        self.component = open_component(
            checkpoint,
            config,
            "vae",
            network,
            name="vae_encoder",
            is_calibrated=False,
            count_activations=network.count_encoder_activations,
            generators={"images": lambda random, shape: random.uniform(-1, 1, shape)},
            cut=defer("fastdeploy_diffusion.models.components:LatentEncoder"),
            unread=DECODER,
        )
        if config.vae_tiling != Tiling.OFF and not checkpoint.is_built:
            self.component.tiling = TilingChoice(config.vae_tiling, network)

    def signature(self, height: Size, width: Size, batch: Size = None) -> Signature:
        """Make the signature for latents of a size, and a number of pictures."""
        config = self.config
        pixels = (multiply(size, config.downscale) for size in (height, width))
        images = (batch, config.in_channels, *pixels)
        moments = (batch, 2 * config.latent_channels, height, width)
        return Signature(
            (TensorSpec("images", images, "float32"),), (TensorSpec("moments", moments, "float32"),)
        )

    def like(self, decoder: Part) -> Part:
        """Plan it for the size that a decoder is planned for."""
        batch, _, *latents = decoder.signature.inputs[0].shape
        height, width = latents
        return Part(self.component, self.signature(height, width, batch), decoder.sizes)

    def encode(self, session: Session, images: FloatArray) -> FloatArray:
        """Encode (B, 3, 8H, 8W) images in [-1, 1] to moments (B, 2 C, H, W).

        ``session`` is that of the component. One picture at a time, as the decoder.
        """
        return np.concatenate([session.run(images=each[None])["moments"] for each in images])

    def sample(self, moments: FloatArray, generators: Sequence[TorchGenerator]) -> FloatArray:
        """Draw scaled latents (B, C, H, W) from the distributions that moments describe.

        Args:
            moments: Means and log variances, (B, 2 C, H, W) float32.
            generators: Of each picture's noise.
        """
        mean, log_variance = np.split(moments, 2, axis=1)
        deviation = np.exp(np.float32(0.5) * np.clip(log_variance, -30.0, 20.0))
        noise = np.stack([each.randn(mean.shape[1:]) for each in generators])
        latents = mean + deviation * noise - np.float32(self.config.shift_factor or 0.0)
        scaled: FloatArray = latents * np.float32(self.config.scaling_factor)
        return scaled
