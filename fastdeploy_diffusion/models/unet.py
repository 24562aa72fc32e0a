"""The UNet of Stable Diffusion 1.x, 2.x (Rombach et al., 2022) and XL (Podell et al., 2023)."""

from collections.abc import Sequence
from typing import Any

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.models.embeddings import TimestepEmbedding, Timesteps
from fastdeploy_diffusion.models.stages import LayerStage, fix_rows, free_rows
from fastdeploy_diffusion.models.unet_blocks import (
    BlockSpec,
    DownBlock,
    UNetMidBlock2DCrossAttn,
    UpBlock,
)
from fastdeploy_diffusion.runtime.program import TensorSpec
from fastdeploy_diffusion.size_range import Size

# Timesteps that go through the prologue at once: always as many, so that engines which compile for
# each shape compile for one, at any number of steps.
TIMESTEPS = 64


class UNet2DConditionModel(nn.Layer):
    """Predicts noise (or velocity, or the sample) from noisy latents, a timestep and a text."""

    def __init__(self, config: UNet2DConditionConfig) -> None:
        super().__init__()
        self.config, self.census = config, config.census()
        channels = config.block_out_channels
        time_dim = 4 * channels[0]
        self.conv_in = nn.Conv2D(config.in_channels, channels[0], 3, padding=1)
        self.time_proj = Timesteps(channels[0], config.flip_sin_to_cos, config.freq_shift)
        self.time_embedding = TimestepEmbedding(channels[0], time_dim)
        self.add_time_proj: Timesteps | None = None
        self.add_embedding: TimestepEmbedding | None = None
        if config.addition_embed_type == "text_time":
            self.add_time_proj = Timesteps(
                config.addition_time_embed_dim or 0, config.flip_sin_to_cos, config.freq_shift
            )
            self.add_embedding = TimestepEmbedding(
                config.projection_class_embeddings_input_dim or 0, time_dim
            )
        # A pass may move projections of all residual blocks, and of all cross-attentions, here.
        self.time_projections: nn.Linear | None = None
        self.context_projections: nn.Linear | None = None
        specs = [_describe(config, level, time_dim) for level in range(config.blocks)]
        self.down_blocks = _build_down_blocks(config, specs)
        self.mid_block = UNetMidBlock2DCrossAttn(specs[-1])
        self.up_blocks = _build_up_blocks(config, specs)
        self.conv_norm_out = nn.GroupNorm(
            config.norm_num_groups, channels[0], epsilon=config.norm_eps
        )
        self.conv_out = nn.Conv2D(channels[0], config.out_channels, 3, padding=1)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        # Any: absent in SD 1.x and 2.x, whose programs have three inputs.
        text_embeds: Any = None,
        time_ids: Any = None,
    ) -> Tensor:
        """Predict for a batch.

        Args:
            sample: Noisy latents, (B, in_channels, H, W) float32.
            timestep: (B,) float32.
            encoder_hidden_states: Text conditioning, (B, T, cross_attention_dim) float32.
            text_embeds: SDXL's pooled text, (B, P) float32.
            time_ids: SDXL's original size, crop and target size, (B, 6) float32.

        Returns:
            The prediction, (B, out_channels, H, W) float32.
        """
        time, context = self.embed(timestep, encoder_hidden_states, text_embeds, time_ids)
        return self.denoise(sample, time, context)

    @property
    def is_hoisted(self) -> bool:
        """Whether the blocks' projections of timestep and text have left them for the prologue."""
        return self.time_projections is not None

    def list_stages(
        self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> list[LayerStage]:
        """Declare the stages: a prologue, which takes timestep and text alone, and the rest."""
        sample, timestep, context, *added = inputs
        time_width: Size = 4 * self.config.block_out_channels[0]
        context_width = context.shape[2]
        if self.time_projections is not None and self.context_projections is not None:
            time_width = self.time_projections.weight.shape[1]
            context_width = self.context_projections.weight.shape[1]
        features = (
            TensorSpec("time_features", (timestep.shape[0], time_width), "float32"),
            TensorSpec("context_features", (*context.shape[:2], context_width), "float32"),
        )
        embeddings = ("time_proj", "time_embedding", "add_time_proj", "add_embedding")
        return [
            LayerStage(
                "prologue",
                (
                    fix_rows(timestep, TIMESTEPS),
                    free_rows(context),
                    *(fix_rows(each, TIMESTEPS) for each in added),
                ),
                (fix_rows(features[0], TIMESTEPS), free_rows(features[1])),
                per_request=True,
                compute=UNet2DConditionModel.embed,
                parts=(*embeddings, "time_projections", "context_projections"),
            ),
            LayerStage(
                "step",
                (sample, *features),
                tuple(outputs),
                compute=UNet2DConditionModel.denoise,
                parts=(
                    *("conv_in", "down_blocks", "mid_block", "up_blocks"),
                    *("conv_norm_out", "conv_out"),
                ),
            ),
        ]

    def embed(
        self,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        text_embeds: Any = None,
        time_ids: Any = None,
    ) -> tuple[Tensor, Tensor]:
        """Embed everything but the sample for the blocks.

        Returns:
            The timesteps' part for the residual blocks, and the texts' for the cross-attentions:
            embedded, (B, time_dim) and (B, T, cross_attention_dim); or
            projected for all of them, (B, time_width) and (B, T, context_width).
        """
        time: Tensor = self.time_embedding(self.time_proj(timestep))
        if self.add_time_proj is not None and self.add_embedding is not None:
            sizes = self.add_time_proj(time_ids.flatten())
            sizes = sizes.reshape([-1, time_ids.shape[1] * sizes.shape[1]])
            time = time + self.add_embedding(paddle.concat([text_embeds, sizes], axis=1))
        if self.time_projections is None or self.context_projections is None:
            return time, encoder_hidden_states
        return self.time_projections(F.silu(time)), self.context_projections(encoder_hidden_states)

    def denoise(self, sample: Tensor, time: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """Predict from the sample and the results of ``embed``."""
        hidden = self.conv_in(sample)
        skips = [hidden]
        for block in self.down_blocks:
            hidden, block_skips = block(hidden, time, encoder_hidden_states)
            skips.extend(block_skips)
        hidden = self.mid_block(hidden, time, encoder_hidden_states)
        for block in self.up_blocks:
            hidden = block(hidden, skips, time, encoder_hidden_states)
        return self.conv_out(F.silu(self.conv_norm_out(hidden)))


def _describe(config: UNet2DConditionConfig, level: int, time_dim: int) -> BlockSpec:
    return BlockSpec(
        channels=config.block_out_channels[level],
        time_dim=time_dim,
        groups=config.norm_num_groups,
        eps=config.norm_eps,
        heads=config.heads[level],
        depth=config.depths[level],
        context_dim=config.context_dims[level],
        linear_projection=config.use_linear_projection,
    )


def _build_down_blocks(config: UNet2DConditionConfig, specs: list[BlockSpec]) -> nn.LayerList:
    blocks = nn.LayerList()
    inputs = config.block_out_channels[0]
    for level, (kind, spec) in enumerate(zip(config.down_block_types, specs, strict=True)):
        blocks.append(
            DownBlock(
                spec,
                inputs,
                config.layers[level],
                attend=kind.startswith("CrossAttn"),
                shrink=level < config.blocks - 1,
            )
        )
        inputs = spec.channels
    return blocks


def _build_up_blocks(config: UNet2DConditionConfig, specs: list[BlockSpec]) -> nn.LayerList:
    blocks = nn.LayerList()
    arriving = config.block_out_channels[-1]
    skips = _count_skip_channels(config)
    for position, kind in enumerate(config.up_block_types):
        level = config.blocks - 1 - position
        inputs = []
        for _ in range(config.layers[level] + 1):
            inputs.append(arriving + skips.pop())
            arriving = specs[level].channels
        blocks.append(
            UpBlock(specs[level], inputs, attend=kind.startswith("CrossAttn"), grow=level > 0)
        )
    return blocks


def _count_skip_channels(config: UNet2DConditionConfig) -> list[int]:
    """Count the channels of every skip from the way down to the way up, first to last."""
    channels = [config.block_out_channels[0]]
    for level, width in enumerate(config.block_out_channels):
        is_last = level == config.blocks - 1
        channels += [width] * (config.layers[level] + (0 if is_last else 1))
    return channels
