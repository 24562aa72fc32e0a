"""IP-Adapters (Ye et al., 2023, https://arxiv.org/abs/2308.06721), base and plus.

The names of all layers are those of the published files.
"""

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from fastdeploy_diffusion.families.networks.ip_adapter import IPAdapterConfig, Resampler
from fastdeploy_diffusion.models.attention import split_heads
from fastdeploy_diffusion.models.sizes import read_sizes


class IPAdapter(nn.Layer):
    """Makes of a picture what a UNet's cross-attentions attend to beside the text."""

    def __init__(self, config: IPAdapterConfig) -> None:
        super().__init__()
        self.config, self.census = config, config.census()
        plus = config.resampler
        self.image_proj = ImageProjection(config) if plus is None else PerceiverResampler(config)
        # Self-attentions have the even numbers.
        self.ip_adapter = nn.LayerDict(
            {
                str(2 * index + 1): ImageKeysAndValues(config.cross_attention_dim, width)
                for index, width in enumerate(config.widths)
            }
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Make the keys and values of all cross-attentions, one after another.

        Args:
            features: Of pictures, as the vision tower makes them: (B, embed_dim), or of the kind
                "plus" (B, T, embed_dim); float32.

        Returns:
            Both (B, tokens, sum of ``config.widths``) float32.
        """
        tokens = self.image_proj(features)
        made = [each(tokens) for each in self.ip_adapter.values()]
        keys, values = zip(*made, strict=True)
        return paddle.concat(keys, axis=-1), paddle.concat(values, axis=-1)


class ImageKeysAndValues(nn.Layer):
    """The projections of image tokens for one cross-attention."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.to_k_ip = nn.Linear(dim, width, bias_attr=False)
        self.to_v_ip = nn.Linear(dim, width, bias_attr=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, T, dim) to keys and values, (B, T, width)."""
        return self.to_k_ip(tokens), self.to_v_ip(tokens)


class ImageProjection(nn.Layer):
    """A linear layer that makes several tokens of one vector, each normalised."""

    def __init__(self, config: IPAdapterConfig) -> None:
        super().__init__()
        self.tokens, dim = config.tokens, config.cross_attention_dim
        self.proj = nn.Linear(config.embed_dim, self.tokens * dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, embeds: Tensor) -> Tensor:
        """Map (B, embed_dim) to (B, tokens, dim)."""
        tokens = self.proj(embeds)
        return self.norm(tokens.reshape([0, self.tokens, tokens.shape[-1] // self.tokens]))


class PerceiverResampler(nn.Layer):
    """Learned tokens that read the vision tower's hidden states, layer by layer."""

    def __init__(self, config: IPAdapterConfig) -> None:
        super().__init__()
        sizes = config.resampler
        assert sizes is not None  # as `IPAdapter` checks
        self.latents = self.create_parameter([1, config.tokens, sizes.hidden_dim])
        self.proj_in = nn.Linear(config.embed_dim, sizes.hidden_dim)
        self.proj_out = nn.Linear(sizes.hidden_dim, config.cross_attention_dim)
        self.norm_out = nn.LayerNorm(config.cross_attention_dim)
        self.layers = nn.LayerList(
            [
                nn.LayerList([PerceiverAttention(sizes), make_feed_forward(sizes)])
                for _ in range(sizes.layers)
            ]
        )

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Map (B, T, embed_dim) to (B, tokens, dim)."""
        features = self.proj_in(hidden_states)
        _, tokens, dim = self.latents.shape
        latents = self.latents.expand([read_sizes(features)[0], tokens, dim])
        for attention, feed_forward in self.layers:
            latents = latents + attention(features, latents)
            latents = latents + feed_forward(latents)
        return self.norm_out(self.proj_out(latents))


class PerceiverAttention(nn.Layer):
    """Attention of learned tokens to features and to themselves."""

    def __init__(self, sizes: Resampler) -> None:
        super().__init__()
        dim, inner, self.heads = sizes.hidden_dim, sizes.inner_dim, sizes.heads
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias_attr=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias_attr=False)
        self.to_out = nn.Linear(inner, dim, bias_attr=False)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        """Map ``latents`` (B, M, dim), given ``features`` (B, T, dim)."""
        latents = self.norm2(latents)
        seen = paddle.concat([self.norm1(features), latents], axis=1)
        key, value = self.to_kv(seen).chunk(2, axis=-1)
        query, key, value = (
            split_heads(each, self.heads) for each in (self.to_q(latents), key, value)
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.to_out(attended.flatten(2))


def make_feed_forward(sizes: Resampler) -> nn.Sequential:
    """Make a LayerNorm, and two linear layers with exact GELU between them."""
    return nn.Sequential(
        nn.LayerNorm(sizes.hidden_dim),
        nn.Linear(sizes.hidden_dim, sizes.ff_dim, bias_attr=False),
        nn.GELU(),
        nn.Linear(sizes.ff_dim, sizes.hidden_dim, bias_attr=False),
    )
