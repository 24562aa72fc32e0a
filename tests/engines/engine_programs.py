"""Small networks of the kinds that diffusion models are made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from drawn_parameters import draw_parameters

from fastdeploy_diffusion.engines.accuracy import Generator, integers
from fastdeploy_diffusion.paddle_runtime import paddle
from fastdeploy_diffusion.runtime.program import Program, TensorSpec

nn, F = paddle.nn, paddle.nn.functional


class ConvBlock(nn.Layer):
    """GroupNorm, SiLU, convolution, twice, with a shift from the timestep and a skip."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, channels), nn.GroupNorm(4, channels)
        self.conv1 = nn.Conv2D(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2D(channels, channels, 3, padding=1)
        self.shift = nn.Linear(8, channels)

    def forward(self, sample, embedding):
        hidden = self.conv1(F.silu(self.norm1(sample)))
        hidden = hidden + self.shift(F.silu(embedding)).unsqueeze(-1).unsqueeze(-1)
        return sample + self.conv2(F.silu(self.norm2(hidden)))


class AttentionBlock(nn.Layer):
    """1×1 convolution, attention over pixels and over a context, GEGLU, and back to pixels."""

    def __init__(self, channels: int = 16, context_dim: int = 12, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.proj_in = nn.Conv2D(channels, channels, 1)
        self.proj_out = nn.Conv2D(channels, channels, 1)
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        widths = (channels, context_dim)
        self.queries = nn.LayerList([nn.Linear(channels, channels) for _ in widths])
        self.keys = nn.LayerList([nn.Linear(width, channels) for width in widths])
        self.values = nn.LayerList([nn.Linear(width, channels) for width in widths])
        self.gate = nn.Linear(channels, 8 * channels)
        self.out = nn.Linear(4 * channels, channels)

    def forward(self, sample, context):
        channels, height, width = sample.shape[1:]
        tokens = self.proj_in(sample).flatten(2).transpose([0, 2, 1])
        tokens = tokens + self.attend(0, self.norm1(tokens), self.norm1(tokens))
        tokens = tokens + self.attend(1, tokens, context)
        value, gate = self.gate(self.norm2(tokens)).chunk(2, axis=-1)
        tokens = tokens + self.out(value * F.gelu(gate))
        pixels = tokens.transpose([0, 2, 1]).reshape([0, channels, height, width])
        return sample + self.proj_out(pixels)

    def attend(self, index, tokens, context):
        query, key, value = (
            project(source).reshape([0, 0, self.heads, tokens.shape[-1] // self.heads])
            for project, source in (
                (self.queries[index], tokens),
                (self.keys[index], context),
                (self.values[index], context),
            )
        )
        return F.scaled_dot_product_attention(query, key, value).flatten(2)


class LinearAfterConv(nn.Layer):
    """Convolution, reshape, transpose, linear: wrong with oneDNN's matmul fusions."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2D(channels, channels, 1)
        self.linear = nn.Linear(channels, channels)

    def forward(self, sample):
        # Not flatten, which oneDNN does not fuse.
        tokens = self.conv(sample).reshape([0, sample.shape[1], -1])
        return self.linear(tokens.transpose([0, 2, 1]))


class LinearOverPixels(nn.Layer):
    """Transpose, reshape, linear, ReLU, and back: an error with oneDNN's matmul fusions."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)

    def forward(self, sample):
        batch, channels, height, width = sample.shape  # in full: with 0 it is not fused
        tokens = sample.transpose([0, 2, 3, 1]).reshape([batch, height * width, channels])
        hidden = F.relu(self.linear(tokens)).reshape([batch, height, width, channels])
        return hidden.transpose([0, 3, 1, 2])


class TimestepEmbedding(nn.Layer):
    """Sinusoids of int64 timesteps: wrong with Paddle Inference's default passes."""

    def forward(self, timestep):
        frequencies = paddle.exp(paddle.arange(16, dtype="float32") * (-9.21 / 16))
        angles = timestep.astype("float32").unsqueeze(1) * frequencies.unsqueeze(0)
        return paddle.concat([paddle.cos(angles), paddle.sin(angles)], axis=-1)


class CausalTextEncoder(nn.Layer):
    """Token and position embeddings, causal attention, quick GELU; last and pooled states."""

    def __init__(self, words: int = 50, width: int = 16, heads: int = 2, length: int = 9) -> None:
        super().__init__()
        self.heads = heads
        self.words, self.positions = nn.Embedding(words, width), nn.Embedding(length, width)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.LayerList([nn.Linear(width, width) for _ in range(3)])
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, input_ids):
        hidden = self.words(input_ids) + self.positions.weight[: input_ids.shape[1]]
        normed = self.norm(hidden)
        query, key, value = (
            project(normed).reshape([0, 0, self.heads, normed.shape[-1] // self.heads])
            for project in self.qkv
        )
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + attended.flatten(2)
        inner = self.fc1(hidden)
        hidden = hidden + self.fc2(inner * F.sigmoid(1.702 * inner))
        return hidden, hidden[:, -1]


class Upsampler(nn.Layer):
    """Nearest-neighbour upsampling and a convolution: an error with the default passes."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2D(channels, channels, 3, padding=1)

    def forward(self, sample):
        return self.conv(F.interpolate(sample, scale_factor=2, mode="nearest"))


class SmallDecoder(nn.Layer):
    """A VAE decoder in small: convolution, attention, upsampling, three channels out."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.conv_in = nn.Conv2D(4, channels, 3, padding=1)
        self.norm, self.norm_out = nn.GroupNorm(4, channels), nn.GroupNorm(4, channels)
        self.qkv = nn.LayerList([nn.Linear(channels, channels) for _ in range(3)])
        self.upsample = Upsampler(channels)
        self.conv_out = nn.Conv2D(channels, 3, 3, padding=1)

    def forward(self, latents):
        hidden = self.conv_in(latents)
        channels, height, width = hidden.shape[1:]
        tokens = self.norm(hidden).flatten(2).transpose([0, 2, 1])
        query, key, value = (project(tokens).unsqueeze(2) for project in self.qkv)
        attended = F.scaled_dot_product_attention(query, key, value).squeeze(2)
        hidden = hidden + attended.transpose([0, 2, 1]).reshape([0, channels, height, width])
        return self.conv_out(F.silu(self.norm_out(self.upsample(hidden))))


class ManyOutputs(nn.Layer):
    """More than ten outputs of several types, from a scalar, a truth value and a vector."""

    def forward(self, scale, flag, vector):
        return (
            *(vector * scale * (index + 1) for index in range(11)),
            paddle.where(flag, vector, -vector).argmax(),
            paddle.logical_not(flag),
        )


@dataclass(frozen=True)
class Case:
    """A network, its signature, and what draws the inputs that are not standard normal."""

    make: Callable[[], nn.Layer]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    generators: Mapping[str, Generator] = field(default_factory=dict)

    def program(self, name: str) -> Program:
        layer = self.make()
        draw_parameters(layer, seed=7)
        layer.eval()
        return Program(name, layer, self.inputs, self.outputs)


def float_spec(name: str, *shape: int | None) -> TensorSpec:
    return TensorSpec(name, shape, "float32")


CASES: Mapping[str, Case] = {
    "conv block": Case(
        ConvBlock,
        (float_spec("sample", 3, 16, 5, 7), float_spec("embedding", 3, 8)),
        (float_spec("output", 3, 16, 5, 7),),
    ),
    "attention": Case(
        AttentionBlock,
        (float_spec("sample", 3, 16, 5, 7), float_spec("context", 3, 11, 12)),
        (float_spec("output", 3, 16, 5, 7),),
    ),
    "linear after conv": Case(
        LinearAfterConv,
        (float_spec("sample", 3, 16, 5, 7),),
        (float_spec("output", 3, 35, 16),),
    ),
    "linear over pixels": Case(
        LinearOverPixels,
        (float_spec("sample", 3, 16, 5, 7),),
        (float_spec("output", 3, 16, 5, 7),),
    ),
    "timestep embedding": Case(
        TimestepEmbedding,
        (TensorSpec("timestep", (3,), "int64"),),
        (float_spec("output", 3, 32),),
        {"timestep": integers(0, 1000)},
    ),
    "text encoder": Case(
        CausalTextEncoder,
        (TensorSpec("input_ids", (3, 9), "int64"),),
        (float_spec("hidden", 3, 9, 16), float_spec("pooled", 3, 16)),
        {"input_ids": integers(0, 50)},
    ),
    "upsampler": Case(
        Upsampler, (float_spec("sample", 3, 8, 5, 7),), (float_spec("output", 3, 8, 10, 14),)
    ),
    "decoder": Case(
        SmallDecoder, (float_spec("latents", 3, 4, 5, 7),), (float_spec("image", 3, 3, 10, 14),)
    ),
    "free dimensions": Case(
        ConvBlock,
        (float_spec("sample", None, 16, None, None), float_spec("embedding", None, 8)),
        (float_spec("output", None, 16, None, None),),
    ),
    "many outputs": Case(
        ManyOutputs,
        (float_spec("scale"), TensorSpec("flag", (1,), "bool"), float_spec("vector", 5)),
        (
            *(float_spec(f"scaled_{index}", 5) for index in range(11)),
            TensorSpec("largest", (), "int64"),
            TensorSpec("not_flag", (1,), "bool"),
        ),
    ),
}


def draw_feeds(case: Case, seed: int, free: int = 4) -> dict[str, np.ndarray]:
    """Draw inputs; free dimensions get the size ``free``."""
    random = np.random.default_rng(seed)
    feeds = {}
    for spec in case.inputs:
        shape = tuple(free if size is None else size for size in spec.shape)
        draw = case.generators.get(spec.name, lambda random, shape: random.standard_normal(shape))
        feeds[spec.name] = np.asarray(draw(random, shape), dtype=spec.dtype)
    return feeds
