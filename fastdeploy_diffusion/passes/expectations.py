"""What a model's config promises, counted without looking at its layers."""

from collections.abc import Sequence
from dataclasses import dataclass

from paddle import nn

from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.models.components import (
    LatentDecoder,
    PooledTextConditioner,
    TextConditioner,
)
from fastdeploy_diffusion.models.flux import FluxTransformer2DModel
from fastdeploy_diffusion.models.t5 import T5EncoderModel
from fastdeploy_diffusion.models.unet import UNet2DConditionModel

# CLIP's text encoder, for what is asked of it.
_CLIP = (TextConditioner, PooledTextConditioner)
# Networks without convolutions.
TRANSFORMERS = (*_CLIP, T5EncoderModel, FluxTransformer2DModel)


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
    if isinstance(network, _CLIP):
        return AttentionCounts(network.encoder.config.num_hidden_layers, 0)
    if isinstance(network, T5EncoderModel):
        return AttentionCounts(network.config.num_layers, 0)
    if isinstance(network, FluxTransformer2DModel):
        return AttentionCounts(network.config.num_layers + network.config.num_single_layers, 0)
    if isinstance(network, LatentDecoder):
        return AttentionCounts(int(network.config.mid_block_add_attention), 0)
    return None


def count_qkv_triples(network: nn.Layer) -> int | None:
    """Count what is projected to queries, keys and values, and to nothing else.

    ``None`` for a network of another kind.
    """
    if isinstance(network, FluxTransformer2DModel):
        return 2 * network.config.num_layers  # both streams
    counts = count_attentions(network)
    return None if counts is None else counts.self_attentions


def count_single_blocks(network: nn.Layer) -> int | None:
    """Count Flux's single-stream blocks; ``None`` for a network of another kind."""
    if isinstance(network, FluxTransformer2DModel):
        return network.config.num_single_layers
    return None if count_attentions(network) is None else 0


def count_rotations(network: nn.Layer) -> int | None:
    """Count attentions with rotary embedding; ``None`` for a network of another kind."""
    counts = count_attentions(network)
    if counts is None:
        return None
    return counts.self_attentions if isinstance(network, FluxTransformer2DModel) else 0


def count_upsamplers(network: nn.Layer) -> int | None:
    """Count the doublings of the resolution; ``None`` for a network of another kind."""
    if isinstance(network, UNet2DConditionModel):
        return network.config.blocks - 1
    if isinstance(network, TRANSFORMERS):
        return 0
    if isinstance(network, LatentDecoder):
        return len(network.config.block_out_channels) - 1
    return None


def count_invariants(network: nn.Layer) -> int | None:
    """Count what a denoiser projects of the timestep or of the prompt, but not of the latents.

    Of a UNet the timestep in residual blocks, and the prompt to keys and values; of Flux the
    conditioning in adaptive norms, and the prompt. ``None`` for a network of another kind.
    """
    if isinstance(network, FluxTransformer2DModel):
        # In all blocks; and the last norm, and the prompt.
        return 2 * network.config.num_layers + network.config.num_single_layers + 2
    if isinstance(network, (*TRANSFORMERS, LatentDecoder)):
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
    gelu_tanh: int = 0


def count_feed_forwards(network: nn.Layer) -> FeedForwardCounts | None:
    """Count by the config of a component; ``None`` for a network of another kind."""
    if isinstance(network, UNet2DConditionModel):
        return FeedForwardCounts(geglu=_count_transformer_blocks(network.config))
    if isinstance(network, _CLIP):
        config = network.encoder.config
        return FeedForwardCounts(**{config.hidden_act: config.num_hidden_layers})
    if isinstance(network, T5EncoderModel):
        return FeedForwardCounts(gelu_tanh=network.config.num_layers)
    if isinstance(network, FluxTransformer2DModel):
        blocks = network.config
        return FeedForwardCounts(gelu_tanh=2 * blocks.num_layers + blocks.num_single_layers)
    if isinstance(network, LatentDecoder):
        return FeedForwardCounts()
    return None


def count_rms_norms(network: nn.Layer) -> int | None:
    """Count RMSNorms of a component; ``None`` for a network of another kind."""
    if isinstance(network, T5EncoderModel):
        return 2 * network.config.num_layers + 1
    if isinstance(network, FluxTransformer2DModel):
        # Of queries and keys; of both streams in double blocks.
        return 4 * network.config.num_layers + 2 * network.config.num_single_layers
    return None if count_attentions(network) is None else 0


def count_adaptive_norms(network: nn.Layer) -> int | None:
    """Count LayerNorms with modulation; ``None`` for a network of another kind."""
    if isinstance(network, FluxTransformer2DModel):
        # Two for each stream of a double block, and the one before the output.
        return 4 * network.config.num_layers + network.config.num_single_layers + 1
    return None if count_attentions(network) is None else 0


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
    if isinstance(network, TRANSFORMERS):
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
    if isinstance(network, FluxTransformer2DModel):
        # In the embeddings of timestep, pooled text and, where there is one, guidance; and once
        # for all modulations.
        return 3 + int(network.config.guidance_embeds)
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
