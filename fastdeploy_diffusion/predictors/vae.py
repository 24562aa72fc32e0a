"""The sub-predictors that turn latents into pictures, and pictures into latents."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.checkpoints.tiny_vae import TinyVAECheckpoint, open_tiny_vae
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import CheckpointError, ConfigError
from fastdeploy_diffusion.families.networks.autoencoder import ENCODER, AutoencoderKLConfig
from fastdeploy_diffusion.lazy import defer
from fastdeploy_diffusion.predictors.open_component import open_component
from fastdeploy_diffusion.predictors.tiling import Tiling, TilingChoice
from fastdeploy_diffusion.runtime.program import Signature, TensorSpec
from fastdeploy_diffusion.runtime.session import Session
from fastdeploy_diffusion.size_range import Size, multiply

FloatArray = npt.NDArray[np.float32]

_LAYERS = "fastdeploy_diffusion.models.components"


class VAEDecoder:
    """The autoencoder's decoder, or a tiny one in its place.

    Args:
        tiny: The tiny autoencoder.

    Attributes:
        config: Of the model's own autoencoder.

    Raises:
        UnsupportedModelError: The autoencoder's config is not implemented.
        CheckpointError: The tiny one is not for these latents.
        ConfigError: Tiles are asked for, and the decoder of a bundle runs as a whole.
        EngineUnavailableError: The engine asked for cannot run here.
    """

    def __init__(
        self, checkpoint: Checkpoint, config: DiffusionConfig, tiny: TinyVAECheckpoint | None = None
    ) -> None:
        self.config = checkpoint.read_network("vae", AutoencoderKLConfig.from_dict)
        self._tiny = tiny
        if tiny is not None:
            _require_fit(checkpoint, self.config, tiny)
            self.component = open_component(
                checkpoint,
                config,
                "vae",
                tiny.config,
                tiny=tiny,
                cut=defer(f"{_LAYERS}:TinyLatentDecoder"),
                unread=("encoder.",),
            )
            self.component.changes = ("tiny-decoder",)
            return
        self.component = open_component(
            checkpoint,
            config,
            "vae",
            self.config,
            cut=defer(f"{_LAYERS}:LatentDecoder"),
            unread=ENCODER,
        )
        if not checkpoint.is_built:
            if config.vae_tiling != Tiling.OFF:
                self.component.tiling = TilingChoice(config.vae_tiling, self.config)
        elif config.vae_tiling in (Tiling.EXACT, Tiling.BLENDED):
            raise ConfigError(
                f"vae_tiling is {config.vae_tiling!r}, and {checkpoint.path} is a bundle, whose "
                "decoder was built as a whole",
                allowed="auto, off",
                fix="leave vae_tiling out, or open the checkpoint that the bundle was made of",
            )

    @property
    def tiny_digest(self) -> str | None:
        """Digest of the tiny autoencoder's weights; ``None`` for the model's own."""
        return self._tiny.tensors.digest() if self._tiny else None

    def signature(self, height: Size, width: Size, batch: Size = None) -> Signature:
        """Make the signature for latents of a size, and a number of pictures."""
        latents = (batch, self.config.latent_channels, height, width)
        pixels = (multiply(size, self.config.downscale) for size in (height, width))
        images = (batch, self.config.out_channels, *pixels)
        return Signature(
            (TensorSpec("latents", latents, "float32"),), (TensorSpec("images", images, "float32"),)
        )

    def decode(self, session: Session, latents: FloatArray) -> FloatArray:
        """Decode (B, C, H, W) scaled latents to (B, 3, 8H, 8W) images in about [-1, 1].

        ``session`` is that of the component. One picture at a time, as with ``enable_slicing`` of
        diffusers: a decoder needs far more memory than a step of the denoiser.
        """
        return np.concatenate([session.run(latents=each[None])["images"] for each in latents])


def open_decoder(checkpoint: Checkpoint, config: DiffusionConfig) -> VAEDecoder:
    """Open the decoder that a configuration chooses; raises as `VAEDecoder`."""
    if config.vae_decoder == "tiny":
        return open_tiny_decoder(checkpoint, config)
    return VAEDecoder(checkpoint, config)


def open_tiny_decoder(checkpoint: Checkpoint, config: DiffusionConfig) -> VAEDecoder:
    """Open the tiny decoder of a configuration that names one; raises as `VAEDecoder`."""
    if config.tiny_vae_path is None:
        raise ConfigError(
            "tiny_vae_path is not given", fix="name the folder or the file of a tiny VAE"
        )
    return VAEDecoder(checkpoint, config, open_tiny_vae(Path(config.tiny_vae_path)))


def _require_fit(
    checkpoint: Checkpoint, config: AutoencoderKLConfig, tiny: TinyVAECheckpoint
) -> None:
    """Refuse a tiny autoencoder of other latents."""
    given = tiny.config.latent_channels, tiny.config.downscale
    wanted = config.latent_channels, config.downscale
    if given != wanted:
        raise CheckpointError(
            f"{tiny.path} decodes latents of {given[0]} channels to {given[1]} times their size",
            allowed=f"{wanted[0]} channels and {wanted[1]} times, as the VAE of {checkpoint.path}",
            fix="give the tiny VAE that was trained for this model",
        )
