"""Multi-head attention, feed-forward and the transformer that the UNet runs over its pixels."""

from typing import Any, ClassVar, NamedTuple

from paddle import Tensor, nn
from paddle.nn import functional as F

from fastdeploy_diffusion.models.sizes import read_sizes


class Stream(NamedTuple):
    """Tokens that an attention projects to queries, keys and values.

    Args:
        names: Of the three linear layers.
        method: Of the attention, that calls them.
        merged: Name of the one linear layer that may replace them.
    """

    names: tuple[str, str, str]
    method: str = "project"
    merged: str = "merged"


class Context(NamedTuple):
    """What cross-attentions attend to, where there are image prompts.

    Args:
        text: (B, M, context_dim); or its keys and values for all cross-attentions, where a pass
            has hoisted them.
        images: For each IP-Adapter, the keys and the values of its tokens for all cross-attentions,
            (B, T, width of all).
    """

    text: Tensor
    images: tuple[tuple[Tensor, Tensor], ...]


class Attention(nn.Layer):
    """Multi-head scaled dot-product attention (Vaswani et al., 2017).

    Args:
        context_dim: Width of the tokens attended to; ``None`` for self-attention.
        qkv_bias: Whether the query, key and value projections have a bias.

    Attributes:
        image_share: Of a cross-attention, which part of an image prompt's keys and values is its.
    """

    image_share: slice

    streams: ClassVar[tuple[Stream, ...]] = (Stream(("to_q", "to_k", "to_v")),)

    def __init__(
        self, dim: int, heads: int, context_dim: int | None = None, qkv_bias: bool = False
    ) -> None:
        super().__init__()
        self.heads = heads
        self.is_cross = context_dim is not None
        bias: Any = None if qkv_bias else False
        self.to_q = nn.Linear(dim, dim, bias_attr=bias)
        self.to_k = nn.Linear(context_dim or dim, dim, bias_attr=bias)
        self.to_v = nn.Linear(context_dim or dim, dim, bias_attr=bias)
        self.to_out = nn.LayerList([nn.Linear(dim, dim)])

    def forward(self, tokens: Tensor, context: Tensor | Context | None = None) -> Tensor:
        """Attend from ``tokens`` (B, N, dim) to ``context`` (B, M, context_dim) or themselves.

        Attentions to image prompts are added to that to the text, each with its own softmax.
        """
        context, images = context if isinstance(context, Context) else (context, ())
        query, key, value = (
            split_heads(each, self.heads)  # (B, N, heads, dim / heads)
            for each in self.project(tokens, tokens if context is None else context)
        )
        attended = F.scaled_dot_product_attention(query, key, value).flatten(2)
        for image in images:
            key, value = (split_heads(each[:, :, self.image_share], self.heads) for each in image)
            # Heads are joined before: OpenVINO 2026.4 ends the process on a sum of three by heads.
            attended = attended + F.scaled_dot_product_attention(query, key, value).flatten(2)
        return self.to_out[0](attended)

    def project(self, tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project to queries (B, N, dim), keys and values (B, M, dim)."""
        return self.to_q(tokens), self.to_k(context), self.to_v(context)


class GEGLU(nn.Layer):
    """Linear layer gated by the exact (erf) GELU of its second half (Shazeer, 2020)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 2 * hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, dim) to (B, N, hidden)."""
        value, gate = self.proj(tokens).chunk(2, axis=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Layer):
    """GEGLU and a linear layer, four times as wide inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # Index 1 is a dropout in the reference implementation and has no parameters.
        self.net = nn.LayerList([GEGLU(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim)])

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, dim) to (B, N, dim)."""
        return self.net[2](self.net[0](tokens))


class BasicTransformerBlock(nn.Layer):
    """Self-attention, cross-attention and feed-forward, each after a LayerNorm and with a skip."""

    def __init__(self, dim: int, heads: int, context_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.attn2 = Attention(dim, heads, context_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim)

    def forward(self, tokens: Tensor, context: Tensor | Context, size: tuple[Any, Any]) -> Tensor:
        """Map ``tokens`` (B, N, dim), conditioned on ``context`` (B, M, context_dim).

        Args:
            size: Height and width of the feature map whose pixels the tokens are.
        """
        normed = self.norm1(tokens)
        tokens = tokens + self.attn1(normed, self.choose_keys(normed, size))
        tokens = tokens + self.attn2(self.norm2(tokens), context)
        return tokens + self.ff(self.norm3(tokens))

    def choose_keys(self, tokens: Tensor, size: tuple[Any, Any]) -> Tensor:
        """Choose the tokens that self-attention attends to; a pass may choose fewer than all."""
        return tokens


class Transformer2DModel(nn.Layer):
    """Transformer blocks over the pixels of a feature map.

    Args:
        channels: Channels of the feature map and width of the tokens.
        context_dim: Width of the text conditioning.
        groups: Of the leading GroupNorm.
        linear_projection: Project tokens with a linear layer (SD 2.x, XL), not a 1×1 convolution.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        depth: int,
        context_dim: int,
        groups: int,
        linear_projection: bool,
    ) -> None:
        super().__init__()
        self.linear_projection = linear_projection
        self.norm = nn.GroupNorm(groups, channels, epsilon=1e-6)
        project = nn.Linear if linear_projection else _convolve_1x1
        self.proj_in = project(channels, channels)
        self.transformer_blocks = nn.LayerList(
            [BasicTransformerBlock(channels, heads, context_dim) for _ in range(depth)]
        )
        self.proj_out = project(channels, channels)

    def forward(self, features: Tensor, context: Tensor | Context) -> Tensor:
        """Map ``features`` (B, C, H, W), conditioned on ``context`` (B, M, context_dim)."""
        _, channels, height, width = read_sizes(features)
        hidden = self.norm(features)
        if self.linear_projection:
            tokens = self.proj_in(_to_tokens(hidden))
        else:
            tokens = _to_tokens(self.proj_in(hidden))
        for block in self.transformer_blocks:
            tokens = block(tokens, context, (height, width))
        if self.linear_projection:
            tokens = self.proj_out(tokens)
        hidden = tokens.transpose([0, 2, 1]).reshape([0, channels, height, width])
        if not self.linear_projection:
            hidden = self.proj_out(hidden)
        return hidden + features


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """Reshape (B, N, dim) to (B, N, heads, dim / heads), the layout of Paddle's attention."""
    return tokens.reshape([0, 0, heads, tokens.shape[-1] // heads])


def _to_tokens(features: Tensor) -> Tensor:
    return features.flatten(2).transpose([0, 2, 1])  # (B, H·W, C)


def _convolve_1x1(inputs: int, outputs: int) -> nn.Conv2D:
    return nn.Conv2D(inputs, outputs, 1)
