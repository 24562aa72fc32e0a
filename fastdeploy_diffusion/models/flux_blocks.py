"""Flux's transformer blocks: two streams side by side, then one."""

from collections.abc import Sequence
from typing import ClassVar

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from fastdeploy_diffusion.models.attention import Stream, split_heads
from fastdeploy_diffusion.models.gelu import gelu_tanh
from fastdeploy_diffusion.models.rms_norm import RMSNorm
from fastdeploy_diffusion.models.rotary import Rotation, rotate

# The roles of a modulation's vectors. Checkpoints hold gains less one.
SHIFT, GAIN, GATE = "shift", "gain", "gate"


class AdaptiveLayerNorm(nn.Layer):
    """A LayerNorm whose gain and shift are projected from the conditioning (Peebles & Xie, 2023).

    Args:
        dim: Width of the tokens.
        parts: The roles of the vectors that it projects from the conditioning, in order.
    """

    def __init__(self, dim: int, parts: tuple[str, ...]) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(dim, len(parts) * dim)
        self.norm = make_plain_norm(dim)

    def modulate(self, conditioning: Tensor) -> list[Tensor]:
        """Map activated conditioning (B, dim) to the vectors of ``parts``, each (B, 1, dim)."""
        vectors = self.linear(conditioning).unsqueeze(1).chunk(len(self.parts), -1)
        return [
            1.0 + vector if part == GAIN else vector
            for vector, part in zip(vectors, self.parts, strict=True)
        ]


class FluxAttention(nn.Layer):
    """Attention with normalized, rotated queries and keys.

    Args:
        joint: Whether a second stream takes part, with projections of its own, and outputs are
            projected. Without, it is one branch of a single-stream block.
    """

    rotate = staticmethod(rotate)

    def __init__(self, dim: int, heads: int, joint: bool) -> None:
        super().__init__()
        self.heads = heads
        self.streams: tuple[Stream, ...] = ()
        head_dim = dim // heads
        self.norm_q, self.norm_k = RMSNorm(head_dim), RMSNorm(head_dim)
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim) for _ in range(3))
        if joint:
            self.streams = (
                Stream(("to_q", "to_k", "to_v")),
                Stream(
                    ("add_q_proj", "add_k_proj", "add_v_proj"), "project_context", "merged_context"
                ),
            )
            self.to_out = nn.LayerList([nn.Linear(dim, dim)])
            self.norm_added_q, self.norm_added_k = RMSNorm(head_dim), RMSNorm(head_dim)
            self.add_q_proj, self.add_k_proj, self.add_v_proj = (
                nn.Linear(dim, dim) for _ in range(3)
            )
            self.to_add_out = nn.Linear(dim, dim)

    def attend(self, projected: Sequence[Tensor], rotation: Rotation) -> Tensor:
        """Attend among tokens, which may be of both streams.

        Args:
            projected: Queries, keys and values, from `project`.
            rotation: Of the tokens' positions.

        Returns:
            The attention's output, (B, N, dim).
        """
        return self._attend(*self._normalize(projected, self.norm_q, self.norm_k), rotation)

    def attend_jointly(
        self, tokens: Tensor, context: Tensor, rotation: Rotation
    ) -> tuple[Tensor, Tensor]:
        """Attend among context (B, M, dim) and tokens (B, N, dim), in this order.

        Returns:
            The outputs for tokens and context, (B, N, dim) and (B, M, dim).
        """
        own = self._normalize(self.project(tokens), self.norm_q, self.norm_k)
        added = self._normalize(self.project_context(context), self.norm_added_q, self.norm_added_k)
        query, key, value = (paddle.concat(pair, axis=1) for pair in zip(added, own, strict=True))
        attended = self._attend(query, key, value, rotation)
        length = context.shape[1]
        return self.to_out[0](attended[:, length:]), self.to_add_out(attended[:, :length])

    def project(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project tokens (B, N, dim) to queries, keys and values, each (B, N, dim)."""
        return self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)

    def project_context(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project the second stream (B, M, dim) to the same, each (B, M, dim)."""
        return self.add_q_proj(context), self.add_k_proj(context), self.add_v_proj(context)

    def _normalize(
        self, projected: Sequence[Tensor], norm_q: RMSNorm, norm_k: RMSNorm
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Split each (B, N, dim) to (B, N, heads, head_dim), and normalize queries and keys."""
        query, key, value = (split_heads(each, self.heads) for each in projected)
        return norm_q(query), norm_k(key), value

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, rotation: Rotation) -> Tensor:
        query, key = self.rotate(query, rotation), self.rotate(key, rotation)
        return F.scaled_dot_product_attention(query, key, value).flatten(2)


class TanhGELU(nn.Layer):
    """Linear layer and GELU."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, dim) to (B, N, hidden)."""
        return gelu_tanh(self.proj(tokens))


class FluxFeedForward(nn.Layer):
    """Two linear layers with a GELU between them, four times as wide inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # Index 1 is a dropout in the reference implementation and has no parameters.
        self.net = nn.LayerList([TanhGELU(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim)])

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, dim) to (B, N, dim)."""
        return self.net[2](self.net[0](tokens))


class FluxTransformerBlock(nn.Layer):
    """Picture and text, each with weights of its own, that attend to each other."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = AdaptiveLayerNorm(dim, 2 * (SHIFT, GAIN, GATE))
        self.norm1_context = AdaptiveLayerNorm(dim, 2 * (SHIFT, GAIN, GATE))
        self.attn = FluxAttention(dim, heads, joint=True)
        self.norm2 = make_plain_norm(dim)
        self.ff = FluxFeedForward(dim)
        self.norm2_context = make_plain_norm(dim)
        self.ff_context = FluxFeedForward(dim)

    def forward(
        self, tokens: Tensor, context: Tensor, conditioning: Tensor, rotation: Rotation
    ) -> tuple[Tensor, Tensor]:
        """Map picture tokens (B, N, dim) and text tokens (B, M, dim).

        ``conditioning`` is (B, dim), activated; ``rotation`` is that of the text, then the picture.
        """
        shift, gain, gate, *feed_forward = self.norm1.modulate(conditioning)
        context_shift, context_gain, context_gate, *context_feed_forward = (
            self.norm1_context.modulate(conditioning)
        )
        attended, context_attended = self.attn.attend_jointly(
            shift_and_scale(self.norm1.norm(tokens), shift, gain),
            shift_and_scale(self.norm1_context.norm(context), context_shift, context_gain),
            rotation,
        )
        tokens = tokens + gate * attended
        context = context + context_gate * context_attended
        shift, gain, gate = feed_forward
        tokens = tokens + gate * self.ff(shift_and_scale(self.norm2(tokens), shift, gain))
        shift, gain, gate = context_feed_forward
        normed = shift_and_scale(self.norm2_context(context), shift, gain)
        return tokens, context + gate * self.ff_context(normed)


class FluxSingleTransformerBlock(nn.Layer):
    """Text and picture as one stream: attention and feed-forward side by side."""

    # The linear layers that read the same tokens.
    projections: ClassVar[tuple[str, ...]] = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm = AdaptiveLayerNorm(dim, (SHIFT, GAIN, GATE))
        self.proj_mlp = nn.Linear(dim, 4 * dim)
        self.proj_out = nn.Linear(5 * dim, dim)
        self.attn = FluxAttention(dim, heads, joint=False)

    def forward(self, tokens: Tensor, conditioning: Tensor, rotation: Rotation) -> Tensor:
        """Map tokens (B, M + N, dim); the rest as in `FluxTransformerBlock`."""
        shift, gain, gate = self.norm.modulate(conditioning)
        normed = shift_and_scale(self.norm.norm(tokens), shift, gain)
        *projected, hidden = self.project(normed)
        branches = [self.attn.attend(projected, rotation), gelu_tanh(hidden)]
        return tokens + gate * self.proj_out(paddle.concat(branches, axis=-1))

    def project(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Project to queries, keys and values (B, N, dim), and the hidden layer (B, N, 4 · dim)."""
        return *self.attn.project(tokens), self.proj_mlp(tokens)


def make_plain_norm(dim: int) -> nn.LayerNorm:
    """Make a LayerNorm without weights."""
    return nn.LayerNorm(dim, epsilon=1e-6, weight_attr=False, bias_attr=False)


def shift_and_scale(normed: Tensor, shift: Tensor, gain: Tensor) -> Tensor:
    """Modulate tokens (B, N, dim) by vectors (B, 1, dim)."""
    return normed * gain + shift
