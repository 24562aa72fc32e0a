"""The way down of a UNet, which ControlNets have as well."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from fastdeploy_diffusion.families.networks.unet_encoder import UNetEncoderConfig
from fastdeploy_diffusion.models.embeddings import TimestepEmbedding, Timesteps
from fastdeploy_diffusion.models.stages import LayerStage, fix_rows, free_rows
from fastdeploy_diffusion.models.unet_blocks import BlockSpec, DownBlock, MidBlock
from fastdeploy_diffusion.runtime.program import TensorSpec
from fastdeploy_diffusion.size_range import Size

# Timesteps that go through the prologue at once: always as many, so that engines which compile for
# each shape compile for one, at any number of steps.
TIMESTEPS = 64
TEXT = "encoder_hidden_states"


class UNetEncoder(nn.Layer):
    """The embeddings of timestep and conditions, the way down, and the middle."""

    def __init__(self, config: UNetEncoderConfig) -> None:
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
        specs = self.describe_blocks()
        self.down_blocks = _build_down_blocks(config, specs)
        self.mid_block = MidBlock(specs[-1], config.has_middle_attention)

    def describe_blocks(self) -> list[BlockSpec]:
        """Describe the blocks of each resolution."""
        config = self.config
        return [
            BlockSpec(
                channels=config.block_out_channels[level],
                time_dim=4 * config.block_out_channels[0],
                groups=config.norm_num_groups,
                eps=config.norm_eps,
                heads=config.heads[level],
                depth=config.depths[level],
                context_dim=config.context_dims[level],
                linear_projection=config.use_linear_projection,
            )
            for level in range(config.blocks)
        ]

    @property
    def is_hoisted(self) -> bool:
        """Whether the blocks' projections of timestep and text have left them for the prologue."""
        return self.time_projections is not None

    def describe_prologue(self, inputs: Sequence[TensorSpec]) -> LayerStage:
        """Declare the stage that takes the timestep and, where they are inputs, the conditions."""
        given = {spec.name: spec for spec in inputs}
        timestep, context = given["timestep"], given.get(TEXT)
        added = [given[name] for name in ("text_embeds", "time_ids") if name in given]
        width: Size = 4 * self.config.block_out_channels[0]
        if self.time_projections is not None:
            width = self.time_projections.weight.shape[1]
        features = TensorSpec("time_features", (timestep.shape[0], width), "float32")
        outputs = [fix_rows(features, TIMESTEPS)]
        if context is not None:
            width = context.shape[2]
            if self.context_projections is not None:
                width = self.context_projections.weight.shape[1]
            features = TensorSpec("context_features", (*context.shape[:2], width), "float32")
            outputs.append(free_rows(features))

        def compute(network: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
            time, text = UNetEncoder.embed(network, **dict(zip(names, tensors, strict=True)))
            return (time,) if text is None else (time, text)

        taken = [fix_rows(timestep, TIMESTEPS)]
        taken += [free_rows(context)] if context is not None else []
        taken += [fix_rows(each, TIMESTEPS) for each in added]
        names = [spec.name for spec in taken]
        embeddings = ("time_proj", "time_embedding", "add_time_proj", "add_embedding")
        return LayerStage(
            "prologue",
            tuple(taken),
            tuple(outputs),
            per_request=True,
            compute=compute,
            parts=(*embeddings, "time_projections", "context_projections"),
        )

    def embed(
        self,
        timestep: Tensor,
        encoder_hidden_states: Any = None,
        text_embeds: Any = None,
        time_ids: Any = None,
    ) -> tuple[Tensor, Any]:
        """Embed everything but the sample for the blocks.

        Returns:
            The timesteps' part for the residual blocks, and the texts' for the cross-attentions:
            embedded, (B, time_dim) and (B, T, cross_attention_dim); or
            projected for all of them, (B, time_width) and (B, T, context_width). The texts' is
            ``None`` without a text.
        """
        time: Tensor = self.time_embedding(self.time_proj(timestep))
        if self.add_time_proj is not None and self.add_embedding is not None:
            sizes = self.add_time_proj(time_ids.flatten())
            sizes = sizes.reshape([-1, time_ids.shape[1] * sizes.shape[1]])
            time = time + self.add_embedding(paddle.concat([text_embeds, sizes], axis=1))
        if self.time_projections is not None:
            time = self.time_projections(F.silu(time))
        if self.context_projections is not None:
            encoder_hidden_states = self.context_projections(encoder_hidden_states)
        return time, encoder_hidden_states

    def encode(self, hidden: Tensor, time: Tensor, context: Any) -> tuple[Tensor, list[Tensor]]:
        """Run the way down and the middle on what the first convolution made.

        Args:
            hidden: (B, C, H, W).
            time: As ``embed`` returns it, like ``context``.

        Returns:
            The middle's result, and every result on the way down, the given one first.
        """
        skips = [hidden]
        for block in self.down_blocks:
            hidden, block_skips = block(hidden, time, context)
            skips.extend(block_skips)
        return self.mid_block(hidden, time, context), skips


def list_features(prologue: LayerStage, sample: TensorSpec) -> tuple[TensorSpec, ...]:
    """List what the prologue made, as a step takes it: with a row for each of the sample's."""
    rows = sample.shape[0]
    return tuple(replace(spec, shape=(rows, *spec.shape[1:])) for spec in prologue.outputs)


def _build_down_blocks(config: UNetEncoderConfig, specs: list[BlockSpec]) -> nn.LayerList:
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
