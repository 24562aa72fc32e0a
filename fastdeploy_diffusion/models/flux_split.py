"""Flux's transformer in two: what needs no latents, and what does."""

from collections.abc import Sequence
from typing import Any

import paddle
from paddle import Tensor, nn

from fastdeploy_diffusion.models.flux import FluxTransformer2DModel

# The transformer's parts that leave it for the prologue, and those that the step keeps.
MOVED = ("time_text_embed", "context_embedder", "pos_embed")
_KEPT = ("x_embedder", "transformer_blocks", "single_transformer_blocks", "norm_out", "proj_out")


class FluxPrologue(nn.Layer):
    """What a transformer computes once a request.

    Args:
        transformer: Whose embeddings move here.
        modulations: The linear layers of all its adaptive norms, which move here, too.
    """

    def __init__(self, transformer: Any, modulations: Sequence[nn.Linear]) -> None:
        super().__init__()
        for name in MOVED:
            setattr(self, name, getattr(transformer, name))
        # Not one matrix: of FLUX.1 it would have more numbers than 32 bits can count.
        self.modulations = nn.LayerList(modulations)

    def forward(
        self,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        img_ids: Tensor,
        txt_ids: Tensor,
        # Any: absent where the model was not distilled for guidance.
        guidance: Any = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the invariants.

        Args:
            encoder_hidden_states: T5's text features, (B, M, joint_attention_dim) float32.
            pooled_projections: CLIP's pooled text, (R, pooled_projection_dim) float32.
            timestep: (R,) float32, from 1 (noise) to 0.
            img_ids: Position of each picture token on three axes, (N, 3) float32.
            txt_ids: Position of each text token, (M, 3) float32.
            guidance: Distilled guidance scale, (R,) float32; with ``guidance_embeds`` only.

        Returns:
            For each of R combinations of timestep, pooled text and guidance the vectors of all
            adaptive norms, (R, vectors · dim); the text's tokens, (B, M, dim); and cosines and
            sines of the positions' angles, each (M + N, head_dim / 2). All float32.
        """
        conditioning = self.time_text_embed(timestep, pooled_projections, guidance)
        vectors = [linear(conditioning) for linear in self.modulations]
        cosines, sines = self.pos_embed(paddle.concat([txt_ids, img_ids], axis=0))
        context = self.context_embedder(encoder_hidden_states)
        return paddle.concat(vectors, axis=1), context, cosines, sines


class FluxStep(nn.Layer):
    """What a transformer computes at every step, with the weights of one that has a prologue."""

    predict = FluxTransformer2DModel.predict

    def __init__(self, transformer: nn.Layer) -> None:
        super().__init__()
        for name in _KEPT:
            setattr(self, name, getattr(transformer, name))

    def forward(
        self,
        hidden_states: Tensor,
        modulations: Tensor,
        context: Tensor,
        cosines: Tensor,
        sines: Tensor,
    ) -> Tensor:
        """Predict for a batch.

        Args:
            hidden_states: Packed noisy latents, (B, N, in_channels) float32.
            modulations: The prologue's, (B, vectors · dim) float32.
            context: The prologue's, (B, M, dim) float32.
            cosines: The prologue's, (M + N, head_dim / 2) float32.
            sines: The prologue's, (M + N, head_dim / 2) float32.

        Returns:
            The velocity, (B, N, out_channels) float32.
        """
        tokens, rotation = self.x_embedder(hidden_states), (cosines, sines)
        return FluxTransformer2DModel.denoise(self, tokens, context, modulations, rotation)
