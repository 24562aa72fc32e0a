"""The transformer of Flux (Black Forest Labs, 2024): rectified flow over text and picture."""

from typing import Any

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

_SINUSOIDS = 256
_TIME_SCALE = 1000.0


class FluxTransformer2DModel(nn.Layer):
    """Predicts the velocity of packed latents from a timestep and a text."""

    def __init__(self, config: FluxTransformer2DConfig) -> None:
        super().__init__()
        self.config, self.census = config, config.census()
        dim, heads = config.inner_dim, config.num_attention_heads
        self.pos_embed = RotaryEmbedding(config.axes_dims_rope)
        self.time_text_embed = FluxConditioner(config)
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
        tokens, context, conditioning, rotation = self.embed(
            hidden_states,
            encoder_hidden_states,
            pooled_projections,
            timestep,
            img_ids,
            txt_ids,
            guidance,
        )
        return self.denoise(tokens, context, conditioning, rotation)

    def embed(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        img_ids: Tensor,
        txt_ids: Tensor,
        guidance: Any = None,
    ) -> tuple[Tensor, Tensor, Tensor, Rotation]:
        """Compute what the blocks take, from the arguments of ``forward``.

        Returns:
            Tokens of the picture (B, N, dim) and of the text (B, M, dim), the activated
            conditioning (B, dim), and the rotation of text and picture.
        """
        conditioning = self.time_text_embed(timestep, pooled_projections, guidance)
        rotation = self.pos_embed(paddle.concat([txt_ids, img_ids], axis=0))
        context = self.context_embedder(encoder_hidden_states)
        return self.x_embedder(hidden_states), context, conditioning, rotation

    def denoise(
        self, tokens: Tensor, context: Tensor, conditioning: Tensor, rotation: Rotation
    ) -> Tensor:
        """Map what ``embed`` gives to the velocity."""
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
