"""CLIP's text transformer (Radford et al., 2021), with and without its projection."""

from typing import ClassVar, NamedTuple

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from fastdeploy_diffusion.families.networks.clip import CLIPEncoderConfig, CLIPTextConfig
from fastdeploy_diffusion.models.attention import Stream, split_heads
from fastdeploy_diffusion.models.sizes import read_sizes


class CLIPTextOutput(NamedTuple):
    """The outputs of the text encoder; every tensor is float32."""

    last_hidden_state: Tensor  # (B, T, D), after the final LayerNorm
    pooled: Tensor  # (B, D) of the end-of-text token; (B, projection_dim) with a projection
    hidden_states: tuple[Tensor, ...]  # the embeddings and each layer's output, (B, T, D)


class CLIPTextModel(nn.Layer):
    """CLIP's causal text transformer."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = CLIPTextEmbeddings(config)
        self.encoder = CLIPEncoder(config, is_causal=True)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)

    def forward(self, input_ids: Tensor) -> CLIPTextOutput:
        """Encode token ids (B, T) int64, T ≤ max_position_embeddings."""
        hidden = self.embeddings(input_ids)
        hidden_states = [hidden]
        for layer in self.encoder.layers:
            hidden = layer(hidden)
            hidden_states.append(hidden)
        last = self.final_layer_norm(hidden)
        return CLIPTextOutput(last, self._pool(last, input_ids), tuple(hidden_states))

    def _pool(self, last: Tensor, input_ids: Tensor) -> Tensor:
        if self.config.eos_token_id == 2:
            # The published configs carry a wrong id; the end token is then the largest one.
            position = input_ids.argmax(axis=-1)
        else:
            position = (input_ids == self.config.eos_token_id).astype("int64").argmax(axis=-1)
        _, length = read_sizes(input_ids)
        positions = F.one_hot(position, self.config.max_position_embeddings)
        chosen = positions[:, :length].unsqueeze(1)  # (B, 1, T)
        return paddle.matmul(chosen, last).squeeze(1)


class CLIPTextModelWithProjection(CLIPTextModel):
    """The text transformer whose pooled output is projected to CLIP's joint space."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__(config)
        self.text_projection = nn.Linear(config.hidden_size, config.projection_dim, bias_attr=False)

    def forward(self, input_ids: Tensor) -> CLIPTextOutput:
        """Encode token ids (B, T) int64; ``pooled`` is (B, projection_dim)."""
        output = super().forward(input_ids)
        return output._replace(pooled=self.text_projection(output.pooled))


class CLIPTextEmbeddings(nn.Layer):
    """Token and learned position embeddings."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map (B, T) int64 to (B, T, D)."""
        _, length = read_sizes(input_ids)
        positions = self.position_embedding.weight[:length]
        return self.token_embedding(input_ids) + positions


class CLIPEncoder(nn.Layer):
    """The stack of transformer layers; a layer of its own because checkpoints name it so.

    Args:
        is_causal: As of `CLIPAttention`.
    """

    def __init__(self, config: CLIPEncoderConfig, is_causal: bool) -> None:
        super().__init__()
        self.layers = nn.LayerList(
            [CLIPEncoderLayer(config, is_causal) for _ in range(config.num_hidden_layers)]
        )


class CLIPEncoderLayer(nn.Layer):
    """Self-attention and a two-layer perceptron, each after a LayerNorm and with a skip."""

    def __init__(self, config: CLIPEncoderConfig, is_causal: bool) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)
        self.self_attn = CLIPAttention(config.hidden_size, config.num_attention_heads, is_causal)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)
        self.mlp = CLIPMLP(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        hidden = hidden + self.self_attn(self.layer_norm1(hidden))
        return hidden + self.mlp(self.layer_norm2(hidden))


class CLIPAttention(nn.Layer):
    """Multi-head self-attention.

    Args:
        is_causal: Whether a token sees itself and those before it alone.
    """

    streams: ClassVar[tuple[Stream, ...]] = (Stream(("q_proj", "k_proj", "v_proj")),)

    def __init__(self, dim: int, heads: int, is_causal: bool) -> None:
        super().__init__()
        self.heads, self.is_causal = heads, is_causal
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        query, key, value = (split_heads(each, self.heads) for each in self.project(hidden, hidden))
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=self.is_causal)
        return self.out_proj(attended.flatten(2))

    def project(self, tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project to queries, keys and values, each (B, T, D)."""
        return self.q_proj(tokens), self.k_proj(context), self.v_proj(context)


class CLIPMLP(nn.Layer):
    """Two linear layers with the config's activation between them."""

    def __init__(self, config: CLIPEncoderConfig) -> None:
        super().__init__()
        self.activation = _ACTIVATIONS[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        return self.fc2(self.activation(self.fc1(hidden)))


def _quick_gelu(values: Tensor) -> Tensor:
    return values * F.sigmoid(1.702 * values)


_ACTIVATIONS = {"quick_gelu": _quick_gelu, "gelu": F.gelu}
