"""What a model's config promises, counted without looking at its layers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from paddle import nn

from fastdeploy_diffusion.models.autoencoder import AutoencoderKLConfig
from fastdeploy_diffusion.models.components import LatentDecoder, TextConditioner
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.models.unet_config import UNet2DConditionConfig


@dataclass(frozen=True)
class AttentionCounts:
    """How many attentions of each kind a network has."""

    self_attentions: int
    cross_attentions: int


def count_attentions(network: nn.Layer) -> AttentionCounts | None:
    """Count by the config of a component; ``None`` for a network of another kind."""
    if isinstance(network, UNet2DConditionModel):
        blocks = _count_transformer_blocks(network.config)
        return AttentionCounts(blocks, blocks)
    if isinstance(network, TextConditioner):
        return AttentionCounts(network.encoder.config.num_hidden_layers, 0)
    if isinstance(network, LatentDecoder):
        return AttentionCounts(int(network.config.mid_block_add_attention), 0)
    return None


def count_upsamplers(network: nn.Layer) -> int | None:
    """Count the doublings of the resolution; ``None`` for a network of another kind."""
    if isinstance(network, UNet2DConditionModel):
        return network.config.blocks - 1
    if isinstance(network, TextConditioner):
        return 0
    if isinstance(network, LatentDecoder):
        return len(network.config.block_out_channels) - 1
    return None


def count_invariants(network: nn.Layer) -> int | None:
    """Count a UNet's projections of the timestep alone, and of the prompt to keys and values.

    ``None`` for a network of another kind.
    """
    if isinstance(network, TextConditioner | LatentDecoder):
        return 0
    if not isinstance(network, UNet2DConditionModel):
        return None
    config = network.config
    if config.addition_embed_type is not None:
        return 0
    # The middle has two residual blocks; the way up has one more a level than the way down.
    resnets = 2 + sum(2 * layers + 1 for layers in config.layers)
    return resnets + _count_transformer_blocks(config)


def count_convolutions(network: nn.Layer, fits: Callable[[int, int], bool]) -> int | None:
    """Count the 3×3 convolutions that keep the resolution, by channels of input and output.

    The first and the last of a network are left out; ``None`` for a network of another kind.
    """
    if isinstance(network, UNet2DConditionModel):
        widths = _list_unet_convolutions(network.config)
    elif isinstance(network, LatentDecoder):
        widths = _list_decoder_convolutions(network.config)
    elif isinstance(network, TextConditioner):
        return 0
    else:
        return None
    return sum(fits(inputs, outputs) for inputs, outputs in widths)


def _list_unet_convolutions(config: UNet2DConditionConfig) -> Iterator[tuple[int, int]]:
    """Two of each residual block, and one after each doubling."""
    width = config.block_out_channels[0]
    skips = [width]
    for level, outputs in enumerate(config.block_out_channels):
        for _ in range(config.layers[level]):
            yield from ((width, outputs), (outputs, outputs))
            width = outputs
            skips.append(width)
        if level < config.blocks - 1:
            skips.append(width)
    yield from [(width, width)] * 4
    for level in reversed(range(config.blocks)):
        outputs = config.block_out_channels[level]
        for _ in range(config.layers[level] + 1):
            yield from ((width + skips.pop(), outputs), (outputs, outputs))
            width = outputs
        if level:
            yield (width, width)


def _list_decoder_convolutions(config: AutoencoderKLConfig) -> Iterator[tuple[int, int]]:
    width = config.block_out_channels[-1]
    yield from [(width, width)] * 4
    for level in reversed(range(len(config.block_out_channels))):
        outputs = config.block_out_channels[level]
        for _ in range(config.layers_per_block + 1):
            yield from ((width, outputs), (outputs, outputs))
            width = outputs
        if level:
            yield (width, width)


def _count_transformer_blocks(config: UNet2DConditionConfig) -> int:
    down = sum(
        config.layers[level] * config.depths[level]
        for level, kind in enumerate(config.down_block_types)
        if kind.startswith("CrossAttn")
    )
    up = sum(
        (config.layers[level] + 1) * config.depths[level]
        for level, kind in zip(range(config.blocks - 1, -1, -1), config.up_block_types, strict=True)
        if kind.startswith("CrossAttn")
    )
    return down + config.depths[-1] + up
