"""The transformer of Flux (Black Forest Labs, 2024): rectified flow over text and picture."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from fastdeploy_diffusion.families.networks.flux import FluxTransformer2DConfig
from fastdeploy_diffusion.models.embeddings import TimestepEmbedding, Timesteps
from fastdeploy_diffusion.models.flux_blocks import (
    GAIN,
    SHIFT,
    AdaptiveLayerNorm,
    FluxSingleTransformerBlock,
    FluxTransformerBlock,
    shift_and_scale,
)
from fastdeploy_diffusion.models.rotary import RotaryEmbedding, Rotation
from fastdeploy_diffusion.models.stages import LayerStage, fix_rows
from fastdeploy_diffusion.runtime.program import TensorSpec

_SINUSOIDS = 256
_TIME_SCALE = 1000.0
# Timesteps that go through the prologue at once. The 28 steps of dev are one batch; with the
# modulations of all blocks, each takes 4 MiB there.
TIMESTEPS = 32


class FluxTransformer2DModel(nn.Layer):
    """Predicts the velocity of packed latents from a timestep and a text."""

    def __init__(self, config: FluxTransformer2DConfig) -> None:
        super().__init__()
        self.config, self.census = config, config.census()
        dim, heads = config.inner_dim, config.num_attention_heads
        self.pos_embed = RotaryEmbedding(config.axes_dims_rope)
        self.time_text_embed = FluxConditioner(config)
        # The linear layers of all adaptive norms, which a pass may move here.
        self.modulations: nn.LayerList | None = None
        self.context_embedder = nn.Linear(config.joint_attention_dim, dim)
        self.x_embedder = nn.Linear(config.in_channels, dim)
        self.transformer_blocks = nn.LayerList(
            [FluxTransformerBlock(dim, heads) for _ in range(config.num_layers)]
        )
        self.single_transformer_blocks = nn.LayerList(
            [FluxSingleTransformerBlock(dim, heads) for _ in range(config.num_single_layers)]
        )
        self.norm_out = AdaptiveLayerNorm(dim, (GAIN, SHIFT))
        self.proj_out = nn.Linear(dim, config.outputs)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        img_ids: Tensor,
        txt_ids: Tensor,
        # Any: absent where the model was not distilled for guidance.
        guidance: Any = None,
    ) -> Tensor:
        """Predict for a batch.

        Args:
            hidden_states: Packed noisy latents, (B, N, in_channels) float32.
            encoder_hidden_states: T5's text features, (B, M, joint_attention_dim) float32.
            pooled_projections: CLIP's pooled text, (B, pooled_projection_dim) float32.
            timestep: (B,) float32, from 1 (noise) to 0.
            img_ids: Position of each picture token on three axes, (N, 3) float32.
            txt_ids: Position of each text token, (M, 3) float32.
            guidance: Distilled guidance scale, (B,) float32; with ``guidance_embeds`` only.

        Returns:
            The velocity, (B, N, out_channels) float32.
        """
        conditioning, context, *rotation = self.embed(
            encoder_hidden_states, pooled_projections, timestep, img_ids, txt_ids, guidance
        )
        tokens = self.x_embedder(hidden_states)
        return self.denoise(tokens, context, conditioning, (rotation[0], rotation[1]))

    @property
    def is_hoisted(self) -> bool:
        """Whether the adaptive norms' linear layers have left the blocks for the prologue."""
        return self.modulations is not None

    def list_stages(
        self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> list[LayerStage]:
        """Declare the stages: the prologue, which takes no latents, then the blocks and their ends.

        Args:
            inputs: Specs of those of ``forward``; sizes are known.
            outputs: The velocity's.
        """
        config, (latents, texts, *others) = self.config, inputs
        batch, image, words = (
            latents.shape[0],
            cast(int, latents.shape[1]),
            cast(int, texts.shape[1]),
        )
        vectors = sum(linear.weight.shape[1] for linear in self.modulations or ())

        def specify(name: str, *sizes: int) -> TensorSpec:
            return TensorSpec(name, (batch, *sizes), "float32")

        conditioning = specify("conditioning", vectors or config.inner_dim)
        tokens = specify("tokens", image, config.inner_dim)
        context = specify("context", words, config.inner_dim)
        stream = specify("stream", words + image, config.inner_dim)
        angles = words + image, config.attention_head_dim // 2
        rotation = TensorSpec("cosines", angles, "float32"), TensorSpec("sines", angles, "float32")
        combined = ("pooled_projections", "timestep", "guidance")
        conditions = [
            fix_rows(each, TIMESTEPS) if each.name in combined else each for each in others
        ]
        draw = {
            "cosines": lambda random, shape: np.cos(random.uniform(0, 64, shape)),
            "sines": lambda random, shape: np.sin(random.uniform(0, 64, shape)),
        }
        return [
            LayerStage(
                "prologue",
                (texts, *conditions),
                (fix_rows(conditioning, TIMESTEPS), context, *rotation),
                per_request=True,
                compute=FluxTransformer2DModel.embed,
                parts=("pos_embed", "time_text_embed", "context_embedder", "modulations"),
            ),
            LayerStage(
                "head",
                (latents,),
                (tokens,),
                compute=lambda layer, latents: layer.x_embedder(latents),
                parts=("x_embedder",),
            ),
            LayerStage(
                "double_block",
                (tokens, context, conditioning, *rotation),
                (replace(tokens, name="next_tokens"), replace(context, name="next_context")),
                repeats=config.num_layers,
                compute=lambda block, *given: block(*given[:3], given[3:]),
                blocks="transformer_blocks",
                draw=draw,
            ),
            LayerStage(
                "join",
                (context, tokens),
                (stream,),
                compute=lambda _, *streams: paddle.concat(streams, axis=1),
            ),
            LayerStage(
                "single_block",
                (stream, conditioning, *rotation),
                (replace(stream, name="next_stream"),),
                repeats=config.num_single_layers,
                compute=lambda block, *given: block(*given[:2], given[2:]),
                blocks="single_transformer_blocks",
                draw=draw,
            ),
            LayerStage(
                "tail",
                (stream, conditioning),
                tuple(outputs),
                compute=lambda layer, stream, conditioning: FluxTransformer2DModel.predict(
                    layer, stream[:, words:], conditioning
                ),
                parts=("norm_out", "proj_out"),
            ),
        ]

    def embed(
        self,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        img_ids: Tensor,
        txt_ids: Tensor,
        guidance: Any = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Embed everything but the latents for the blocks, from the arguments of ``forward``.

        Returns:
            The activated conditioning, (B, dim), or the vectors of all adaptive norms,
            (B, vectors · dim); the text's tokens, (B, M, dim); cosines and sines of the angles by
            which text and picture are rotated, each (M + N, head_dim / 2).
        """
        conditioning = self.time_text_embed(timestep, pooled_projections, guidance)
        if self.modulations is not None:
            conditioning = paddle.concat([each(conditioning) for each in self.modulations], axis=1)
        cosines, sines = self.pos_embed(paddle.concat([txt_ids, img_ids], axis=0))
        return conditioning, self.context_embedder(encoder_hidden_states), cosines, sines

    def denoise(
        self, tokens: Tensor, context: Tensor, conditioning: Tensor, rotation: Rotation
    ) -> Tensor:
        """Map latents and the results of ``embed`` to the velocity."""
        length = context.shape[1]
        for block in self.transformer_blocks:
            tokens, context = block(tokens, context, conditioning, rotation)
        stream = paddle.concat([context, tokens], axis=1)
        for block in self.single_transformer_blocks:
            stream = block(stream, conditioning, rotation)
        return self.predict(stream[:, length:], conditioning)

    def predict(self, tokens: Tensor, conditioning: Tensor) -> Tensor:
        """Map the last block's picture tokens (B, N, dim) to the velocity."""
        gain, shift = self.norm_out.modulate(conditioning)
        return self.proj_out(shift_and_scale(self.norm_out.norm(tokens), shift, gain))


class FluxConditioner(nn.Layer):
    """Embeds timestep, guidance scale and pooled text as one vector."""

    def __init__(self, config: FluxTransformer2DConfig) -> None:
        super().__init__()
        dim = config.inner_dim
        self.time_proj = Timesteps(_SINUSOIDS)
        self.timestep_embedder = TimestepEmbedding(_SINUSOIDS, dim)
        self.guidance_embedder: TimestepEmbedding | None = None
        if config.guidance_embeds:
            self.guidance_embedder = TimestepEmbedding(_SINUSOIDS, dim)
        self.text_embedder = TimestepEmbedding(config.pooled_projection_dim, dim)

    def forward(self, timestep: Tensor, pooled: Tensor, guidance: Any) -> Tensor:
        """Map (B,), (B, P) and (B,) to (B, dim), activated, as all modulations take it."""
        time = self.timestep_embedder(self.time_proj(timestep * _TIME_SCALE))
        if self.guidance_embedder is not None:
            time = time + self.guidance_embedder(self.time_proj(guidance * _TIME_SCALE))
        return F.silu(time + self.text_embedder(pooled))
