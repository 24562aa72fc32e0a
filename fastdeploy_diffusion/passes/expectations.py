"""What a model's config promises, counted without looking at its layers."""

from collections.abc import Callable, Iterator, Sequence
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
    return _count_resnets(config) + _count_transformer_blocks(config)


@dataclass(frozen=True)
class FeedForwardCounts:
    """How many feed-forwards of a network have which activation."""

    geglu: int = 0
    gelu: int = 0
    quick_gelu: int = 0


def count_feed_forwards(network: nn.Layer) -> FeedForwardCounts | None:
    """Count by the config of a component; ``None`` for a network of another kind."""
    if isinstance(network, UNet2DConditionModel):
        return FeedForwardCounts(geglu=_count_transformer_blocks(network.config))
    if isinstance(network, TextConditioner):
        config = network.encoder.config
        return FeedForwardCounts(**{config.hidden_act: config.num_hidden_layers})
    if isinstance(network, LatentDecoder):
        return FeedForwardCounts()
    return None


@dataclass(frozen=True)
class GroupNormCounts:
    """How many GroupNorms stand before SiLU, and how many before attention."""

    before_silu: int
    before_attention: int


def count_group_norms(network: nn.Layer) -> GroupNormCounts | None:
    """Count by the config of a component; ``None`` for a network of another kind."""
    if isinstance(network, UNet2DConditionModel):
        return GroupNormCounts(
            2 * _count_resnets(network.config) + 1, _count_transformers(network.config)
        )
    if isinstance(network, TextConditioner):
        return GroupNormCounts(0, 0)
    if isinstance(network, LatentDecoder):
        config = network.config
        resnets = 2 + len(config.block_out_channels) * (config.layers_per_block + 1)
        return GroupNormCounts(2 * resnets + 1, int(config.mid_block_add_attention))
    return None


def count_silus(network: nn.Layer) -> int | None:
    """Count SiLUs and quick GELUs of a component; ``None`` for a network of another kind."""
    norms, feed_forwards = count_group_norms(network), count_feed_forwards(network)
    if norms is None or feed_forwards is None:
        return None
    if not isinstance(network, UNet2DConditionModel):
        return norms.before_silu + feed_forwards.quick_gelu
    # One in every embedding; the embedded timestep goes through one in every residual block, or
    # once for all of them in a prologue.
    embeddings = 1 if network.config.addition_embed_type is None else 2
    is_hoisted = hasattr(network, "prologue")
    return norms.before_silu + embeddings + (1 if is_hoisted else _count_resnets(network.config))


def _count_resnets(config: UNet2DConditionConfig) -> int:
    # The middle has two; the way up has one more a level than the way down.
    return 2 + sum(2 * layers + 1 for layers in config.layers)


def _count_transformers(config: UNet2DConditionConfig) -> int:
    return _count_by_level(config, [1] * config.blocks)


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
    return _count_by_level(config, config.depths)


def _count_by_level(config: UNet2DConditionConfig, each: Sequence[int]) -> int:
    """Count what each transformer of a level has so many of."""
    down = sum(
        config.layers[level] * each[level]
        for level, kind in enumerate(config.down_block_types)
        if kind.startswith("CrossAttn")
    )
    up = sum(
        (config.layers[level] + 1) * each[level]
        for level, kind in zip(range(config.blocks - 1, -1, -1), config.up_block_types, strict=True)
        if kind.startswith("CrossAttn")
    )
    return down + each[-1] + up
