"""T5's encoder, version 1.1 (Raffel et al., 2020; Shazeer, 2020)."""

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from fastdeploy_diffusion.families.networks.t5 import T5Config
from fastdeploy_diffusion.models.attention import Stream, split_heads
from fastdeploy_diffusion.models.gelu import gelu_tanh
from fastdeploy_diffusion.models.rms_norm import RMSNorm
from fastdeploy_diffusion.models.sizes import read_sizes


class T5EncoderModel(nn.Layer):
    """Texts to features; every token attends to every other, padding included."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config, self.census = config, config.census()
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = T5Stack(config)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Encode token ids (B, T) int64 to features (B, T, d_model) float32."""
        return self.encoder(self.shared(input_ids))


class T5Stack(nn.Layer):
    """The layers, which share the first one's position bias, and a last normalization."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.block = nn.LayerList(
            [T5Block(config, has_bias=index == 0) for index in range(config.num_layers)]
        )
        self.final_layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, T, d_model) to (B, T, d_model)."""
        _, length, _ = read_sizes(hidden)
        bias = self.block[0].layer[0].SelfAttention.compute_bias(length)
        for block in self.block:
            hidden = block(hidden, bias)
        return self.final_layer_norm(hidden)


class T5Block(nn.Layer):
    """Self-attention and feed-forward; a list of two because checkpoints name them so."""

    def __init__(self, config: T5Config, has_bias: bool) -> None:
        super().__init__()
        self.layer = nn.LayerList([T5LayerSelfAttention(config, has_bias), T5LayerFF(config)])

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Map (B, T, d_model), given a position bias (1, heads, T, T)."""
        return self.layer[1](self.layer[0](hidden, bias))


class T5LayerSelfAttention(nn.Layer):
    """Attention after a normalization and with a skip."""

    def __init__(self, config: T5Config, has_bias: bool) -> None:
        super().__init__()
        # Checkpoints name it so.
        self.SelfAttention = T5Attention(config, has_bias)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Map (B, T, d_model), given a position bias (1, heads, T, T)."""
        return hidden + self.SelfAttention(self.layer_norm(hidden), bias)


class T5Attention(nn.Layer):
    """Attention whose scores are not scaled, and have a bias by distance added."""

    streams: ClassVar[tuple[Stream, ...]] = (Stream(("q", "k", "v")),)

    def __init__(self, config: T5Config, has_bias: bool) -> None:
        super().__init__()
        self.heads, self.farthest = config.num_heads, config.relative_attention_max_distance
        inner = config.num_heads * config.d_kv
        self.q, self.k, self.v = (
            nn.Linear(config.d_model, inner, bias_attr=False) for _ in range(3)
        )
        self.o = nn.Linear(inner, config.d_model, bias_attr=False)
        if has_bias:
            buckets = config.relative_attention_num_buckets
            self.relative_attention_bias = nn.Embedding(buckets, config.num_heads)
            by_distance = paddle.to_tensor(list_buckets(buckets, self.farthest))
            self.register_buffer("buckets", by_distance, persistable=False)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Map (B, T, d_model), given a position bias (1, heads, T, T)."""
        query, key, value = (
            split_heads(each, self.heads).transpose([0, 2, 1, 3])  # (B, heads, T, d_kv)
            for each in self.project(hidden)
        )
        scores = paddle.matmul(query, key, transpose_y=True) + bias
        attended = paddle.matmul(F.softmax(scores, axis=-1), value)
        return self.o(attended.transpose([0, 2, 1, 3]).flatten(2))

    def project(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project (B, T, d_model) to queries, keys and values, each (B, T, heads · d_kv)."""
        return self.q(hidden), self.k(hidden), self.v(hidden)

    def compute_bias(self, length: int) -> Tensor:
        """Compute the bias between ``length`` tokens, (1, heads, length, length)."""
        by_distance = self.relative_attention_bias(self.buckets)  # (2 · farthest + 1, heads)
        positions = paddle.arange(length, dtype="float32")
        distances = positions.unsqueeze(0) - positions.unsqueeze(1)  # from query to key
        nearby = distances.clip(-float(self.farthest), float(self.farthest))
        rows = (nearby + float(self.farthest)).astype("int64")
        return F.embedding(rows, by_distance).transpose([2, 0, 1]).unsqueeze(0)


class T5LayerFF(nn.Layer):
    """Feed-forward after a normalization and with a skip."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        # Checkpoints name it so.
        self.DenseReluDense = T5GatedFeedForward(config)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, T, d_model) to (B, T, d_model)."""
        return hidden + self.DenseReluDense(self.layer_norm(hidden))


class T5GatedFeedForward(nn.Layer):
    """Linear layer gated by the GELU of another (Shazeer, 2020)."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(config.d_model, config.d_ff, bias_attr=False)
        self.wi_1 = nn.Linear(config.d_model, config.d_ff, bias_attr=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias_attr=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, T, d_model) to (B, T, d_model)."""
        return self.wo(gelu_tanh(self.wi_0(hidden)) * self.wi_1(hidden))


def list_buckets(buckets: int, farthest: int) -> npt.NDArray[np.int64]:
    """List the bucket of each distance from a query to a key, both directions.

    Half of the buckets are for keys behind the query. Of each half, half are for one distance each,
    and the rest grow logarithmically (Raffel et al., 2020, sec. 2.1).

    Args:
        farthest: Distance from which on all share the last bucket.

    Returns:
        Of the distances -farthest … farthest, (2 · farthest + 1,) int64.
    """
    distances = np.arange(-farthest, farthest + 1)
    half = buckets // 2
    exact = half // 2
    lengths = np.abs(distances)
    # In float32, as in the reference, for at the borders of buckets rounding decides.
    ratios = np.maximum(lengths, 1).astype(np.float32) / np.float32(exact)
    scaled = np.log(ratios) / np.float32(math.log(farthest / exact)) * np.float32(half - exact)
    grown = np.minimum(exact + scaled.astype(np.int64), half - 1)
    return np.where(distances > 0, half, 0) + np.where(lengths < exact, lengths, grown)
