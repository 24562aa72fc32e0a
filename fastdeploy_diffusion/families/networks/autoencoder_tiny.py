"""The config of tiny autoencoders."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.networks.activations import Activations, Shapes
from fastdeploy_diffusion.families.networks.census import Census, Convolution
from fastdeploy_diffusion.families.networks.network_config import (
    BlockCount,
    Factor,
    NetworkConfig,
    PerBlock,
    Stack,
    Width,
)
from fastdeploy_diffusion.families.networks.network_kind import NetworkKind
from fastdeploy_diffusion.shown import show

_COLOURS = 3
_ONLY: dict[str, tuple[Any, ...]] = {
    "act_fn": ("relu",),
    "upsample_fn": ("nearest",),
    "upsampling_scaling_factor": (2,),
}
# What latents are as bytes, the precision of training runs, and the decoder's widths once more.
_INERT = frozenset({"latent_magnitude", "latent_shift", "force_upcast", "block_out_channels"})


@dataclass(frozen=True)
class AutoencoderTinyConfig(NetworkConfig):
    """The keys of a tiny autoencoder's ``config.json`` that decide what it computes."""

    only = _ONLY
    inert = _INERT

    in_channels: Width = 3
    out_channels: Width = 3
    encoder_block_out_channels: PerBlock[Width] = (64, 64, 64, 64)
    decoder_block_out_channels: PerBlock[Width] = (64, 64, 64, 64)
    num_encoder_blocks: PerBlock[BlockCount] = (1, 3, 3, 3)
    num_decoder_blocks: PerBlock[BlockCount] = (3, 3, 3, 1)
    latent_channels: Width = 4
    scaling_factor: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    shift_factor: Factor | None = None

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.out_channels != _COLOURS:
            raise UnsupportedModelError(
                f"{name}: out_channels = {self.out_channels} is not implemented",
                allowed=f"{_COLOURS}: red, green and blue",
            )
        for side in ("encoder", "decoder"):
            key, counts = f"{side}_block_out_channels", getattr(self, f"num_{side}_blocks")
            widths = getattr(self, key)
            if len(widths) != len(self.decoder_block_out_channels) or len(set(widths)) > 1:
                raise UnsupportedModelError(
                    f"{name}: {key} = {show(widths)} is not implemented",
                    allowed="one width at every resolution, and as many of them in the encoder "
                    "as in the decoder: its convolutions between resolutions keep the width",
                )
            if len(counts) != len(widths):
                raise UnsupportedModelError(
                    f"{name}: num_{side}_blocks = {show(counts)} makes no sense",
                    allowed=f"{len(widths)} counts, one for each of the {key}",
                )

    @property
    def stacks(self) -> list[Stack]:
        """None: blocks and convolutions are layers of one list."""
        return []

    @property
    def downscale(self) -> int:
        """Pixels of the picture per pixel of the latents, in each direction."""
        return int(2 ** (len(self.decoder_block_out_channels) - 1))

    def count_activations(self, shapes: Shapes) -> Activations:
        """Count the numbers alive at once in a run of the decoder, for shapes of its inputs."""
        rows, _, height, width = shapes["latents"]
        # At the last resolution: a block's input, and what its convolutions take and give.
        pixels = rows * height * width * self.downscale**2
        return Activations(3 * pixels * self.decoder_block_out_channels[0])

    def census(self) -> Census:
        """Count the places that passes rewrite in the decoder."""
        width = self.decoder_block_out_channels[0]
        convolutions = 3 * sum(self.num_decoder_blocks) + len(self.num_decoder_blocks) - 1
        return {Convolution(width, width): convolutions}


AUTOENCODER_TINY = NetworkKind(
    "AutoencoderTiny", "diffusers", "vae", AutoencoderTinyConfig, "autoencoder_tiny"
)
