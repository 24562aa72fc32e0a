"""What a model's config promises, counted without looking at its layers."""

from dataclasses import dataclass

from paddle import nn

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
