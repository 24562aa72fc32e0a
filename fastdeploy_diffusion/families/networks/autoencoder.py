"""The config of autoencoders."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.keys.diffusers import VAE_RULES
from fastdeploy_diffusion.families.networks.activations import Activations, Shapes
from fastdeploy_diffusion.families.networks.census import Census, Convolution, Site
from fastdeploy_diffusion.families.networks.network_config import (
    Factor,
    LayerCount,
    NetworkConfig,
    PerBlock,
    Stack,
    Width,
    check_division,
)
from fastdeploy_diffusion.families.networks.network_kind import NetworkKind
from fastdeploy_diffusion.shown import show

ENCODER, DECODER = ("encoder.", "quant_conv."), ("decoder.", "post_quant_conv.")
"""Prefixes of the weights of an autoencoder's two networks."""

_COLOURS = 3
_ONLY: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu",),
    "latents_mean": (None,),
    "latents_std": (None,),
}
# force_upcast asks half-precision runs to decode in float32, which is what this layer always does.
_INERT = frozenset({"force_upcast"})


@dataclass(frozen=True)
class AutoencoderKLConfig(NetworkConfig):
    """The keys of an autoencoder's ``config.json`` that decide what it computes."""

    only = _ONLY
    inert = _INERT
    # Of exact tiling: rows and columns of the largest windows of feature maps, and the queries of
    # one run of the attention, so that an engine may hold a score for each of them and every key.
    window: ClassVar[int] = 128
    queries: ClassVar[int] = 1024
    # Text to image needs no encoder.
    dispensable = ENCODER

    in_channels: Width = 3
    out_channels: Width = 3
    down_block_types: PerBlock[str] = ("DownEncoderBlock2D",)
    up_block_types: PerBlock[str] = ("UpDecoderBlock2D",)
    block_out_channels: PerBlock[Width] = (64,)
    layers_per_block: LayerCount = 1
    latent_channels: Width = 4
    norm_num_groups: Width = 32
    sample_size: Width | tuple[Width, Width] = 32
    scaling_factor: Annotated[float, Field(ge=1e-6, le=1e6)] = 0.18215
    shift_factor: Factor | None = None
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    def __post_init__(self) -> None:
        blocks = len(self.block_out_channels)
        for key, block in (
            ("down_block_types", "DownEncoderBlock2D"),
            ("up_block_types", "UpDecoderBlock2D"),
        ):
            if getattr(self, key) != (block,) * blocks:
                raise UnsupportedModelError(
                    f"AutoencoderKLConfig: {key} = {show(getattr(self, key))} is not implemented",
                    allowed=f"{block!r} for each of the {blocks} block_out_channels",
                )
        name, widths = type(self).__name__, self.block_out_channels
        if self.out_channels != _COLOURS:
            raise UnsupportedModelError(
                f"{name}: out_channels = {self.out_channels} is not implemented",
                allowed=f"{_COLOURS}: red, green and blue",
            )
        check_division(name, "norm_num_groups", self.norm_num_groups, widths)

    @property
    def stacks(self) -> list[Stack]:
        """All stacks of layers, those that hold others first."""
        blocks, key = len(self.block_out_channels), "layers_per_block"
        stacks = [
            Stack("block_out_channels", name, blocks)
            for name in ("encoder.down_blocks", "decoder.up_blocks")
        ]
        for block in range(blocks):
            down, up = f"encoder.down_blocks.{block}", f"decoder.up_blocks.{block}"
            stacks.append(Stack(key, f"{down}.resnets", self.layers_per_block))
            stacks.append(Stack(key, f"{up}.resnets", self.layers_per_block + 1))
        return stacks

    @property
    def downscale(self) -> int:
        """Pixels of the picture per pixel of the latents, in each direction."""
        return int(2 ** (len(self.block_out_channels) - 1))

    @property
    def tile_pixels(self) -> int:
        """Rows and columns of the tiles that diffusers blends, in pixels."""
        size = self.sample_size
        return size[0] if isinstance(size, tuple) else size

    def count_window_activations(self, latents: tuple[int, int]) -> Activations:
        """Count the numbers alive at once in a run in windows, for rows and columns of latents.

        Feature maps lie outside of memory, but for one window, and the attention's keys and values.
        """
        height, width = latents
        widest, window = max(self.block_out_channels), self.window**2
        pixels = height * width if self.mid_block_add_attention else 0
        tokens = 2 * pixels * self.block_out_channels[-1]
        return Activations(max(3 * widest * window, tokens), self.queries * pixels)

    def count_activations(self, shapes: Shapes) -> Activations:
        """Count the numbers alive at once in a run of the decoder, for shapes of its inputs."""
        rows, _, height, width = shapes["latents"]
        pixels = height * width
        scores = pixels**2 if self.mid_block_add_attention else 0
        features = inputs = 0
        for own in self.block_out_channels[::-1]:
            inputs = inputs or own
            # A residual block: input, normalised, convolved. Then the upsampler: before and after
            # its convolution, at four times the pixels.
            features = max(features, pixels * (2 * inputs + own))
            if pixels < height * width * self.downscale**2:
                features = max(features, 4 * pixels * 2 * own)
                pixels *= 4
            inputs = own
        return Activations(rows * features, rows * scores)

    def count_encoder_activations(self, shapes: Shapes) -> Activations:
        """Count the numbers alive at once in a run of the encoder, for shapes of its inputs."""
        rows, _, height, width = shapes["images"]
        pixels, features = height * width, 0
        inputs = self.block_out_channels[0]
        for level, own in enumerate(self.block_out_channels):
            # A residual block: input, normalised, convolved. Then the downsampler, which pads.
            features = max(features, pixels * (2 * inputs + own))
            if level < len(self.block_out_channels) - 1:
                features = max(features, pixels * 2 * own)
                pixels //= 4
            inputs = own
        scores = pixels**2 if self.mid_block_add_attention else 0
        return Activations(rows * features, rows * scores)

    def census(self) -> Census:
        """Count the places that passes rewrite in the decoder."""
        blocks = len(self.block_out_channels)
        return {
            **self._count_sites(2 + blocks * (self.layers_per_block + 1)),
            Site.UPSAMPLER: blocks - 1,
            **Counter(self._list_convolutions()),
        }

    def encoder_census(self) -> Census:
        """Count the places that passes rewrite in the encoder."""
        return {
            **self._count_sites(2 + len(self.block_out_channels) * self.layers_per_block),
            **Counter(self._list_encoder_convolutions()),
        }

    def _count_sites(self, resnets: int) -> Census:
        attentions = int(self.mid_block_add_attention)
        return {
            **dict.fromkeys((Site.SELF_ATTENTION, Site.QKV, Site.GROUP_NORM), attentions),
            Site.GROUP_NORM_SILU: 2 * resnets + 1,
        }

    def _list_encoder_convolutions(self) -> Iterator[Convolution]:
        width = self.block_out_channels[0]
        for outputs in self.block_out_channels:
            for _ in range(self.layers_per_block):
                yield from (Convolution(width, outputs), Convolution(outputs, outputs))
                width = outputs
        yield from [Convolution(width, width)] * 4

    def _list_convolutions(self) -> Iterator[Convolution]:
        width = self.block_out_channels[-1]
        yield from [Convolution(width, width)] * 4
        for level in reversed(range(len(self.block_out_channels))):
            outputs = self.block_out_channels[level]
            for _ in range(self.layers_per_block + 1):
                yield from (Convolution(width, outputs), Convolution(outputs, outputs))
                width = outputs
            if level:
                yield Convolution(width, width)


AUTOENCODER = NetworkKind(
    "AutoencoderKL", "diffusers", "vae", AutoencoderKLConfig, "autoencoder", VAE_RULES
)
