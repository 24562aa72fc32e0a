"""A Flux transformer in parts: before its blocks, one block, after its blocks.

The blocks of one kind differ in nothing but their weights. As one program that takes the weights as
inputs, they need not all be in memory at once.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from paddle import Tensor, nn

from fastdeploy_diffusion.families.networks.flux import FluxTransformer2DConfig
from fastdeploy_diffusion.models.flux import FluxTransformer2DModel
from fastdeploy_diffusion.models.flux_blocks import FluxSingleTransformerBlock, FluxTransformerBlock

# The transformer's parts that each program keeps, under their own names.
HEAD = ("pos_embed", "time_text_embed", "context_embedder", "x_embedder")
TAIL = ("norm_out", "proj_out")
# The lists of blocks; in each, how many streams of tokens a block takes and gives.
BLOCKS: Mapping[str, int] = {"transformer_blocks": 2, "single_transformer_blocks": 1}


class FluxHead(nn.Layer):
    """What a Flux transformer computes before its blocks.

    Args:
        transformer: Whose parts these are.
    """

    def __init__(self, transformer: nn.Layer) -> None:
        super().__init__()
        for name in HEAD:
            setattr(self, name, getattr(transformer, name))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Take what `FluxTransformer2DModel` takes; give what its blocks take.

        Returns:
            Tokens of the picture (B, N, dim) and of the text (B, M, dim), the activated
            conditioning (B, dim), cosines and sines (M + N, head_dim / 2).
        """
        *embedded, rotation = FluxTransformer2DModel.embed(self, *inputs)
        return *embedded, *rotation


class FluxTail(nn.Layer):
    """What a Flux transformer computes after its blocks.

    Args:
        transformer: Whose parts these are.
    """

    def __init__(self, transformer: nn.Layer) -> None:
        super().__init__()
        for name in TAIL:
            setattr(self, name, getattr(transformer, name))

    def forward(self, tokens: Tensor, conditioning: Tensor) -> Tensor:
        """Map picture tokens (B, N, dim) to the velocity (B, N, out_channels)."""
        return FluxTransformer2DModel.predict(self, tokens, conditioning)


class FluxBlockProgram(nn.Layer):
    """A block on its own, with its weights or with others that it is given.

    Args:
        block: The block.
        streams: How many streams of tokens it takes and gives.
    """

    def __init__(self, block: nn.Layer, streams: int) -> None:
        super().__init__()
        self.block = block
        self.streams = streams

    def forward(self, *inputs: Tensor) -> Any:
        """Run the block.

        Args:
            *inputs: Its streams of tokens, each (B, N, dim); conditioning (B, dim); cosines and
                sines, each (all tokens, head_dim / 2). Then, to run with these instead of its own,
                every weight in the order of ``named_parameters``, in PyTorch's layout (the weight
                of a linear layer is [out, in]).

        Returns:
            As many streams.
        """
        count = self.streams + 3
        *streams, conditioning, cosines, sines = inputs[:count]
        with _lend(self.block, inputs[count:]):
            return self.block(*streams, conditioning, (cosines, sines))


def make_head(config: FluxTransformer2DConfig) -> FluxHead:
    """Make what a transformer computes before its blocks."""
    return FluxHead(_make_bare_transformer(config))


def make_double_block(config: FluxTransformer2DConfig) -> FluxBlockProgram:
    """Make one of the blocks with two streams."""
    block = FluxTransformerBlock(config.inner_dim, config.num_attention_heads)
    return FluxBlockProgram(block, BLOCKS["transformer_blocks"])


def make_single_block(config: FluxTransformer2DConfig) -> FluxBlockProgram:
    """Make one of the blocks with one stream."""
    block = FluxSingleTransformerBlock(config.inner_dim, config.num_attention_heads)
    return FluxBlockProgram(block, BLOCKS["single_transformer_blocks"])


def make_tail(config: FluxTransformer2DConfig) -> FluxTail:
    """Make what a transformer computes after its blocks."""
    return FluxTail(_make_bare_transformer(config))


def _make_bare_transformer(config: FluxTransformer2DConfig) -> FluxTransformer2DModel:
    return FluxTransformer2DModel(replace(config, num_layers=0, num_single_layers=0))


@contextmanager
def _lend(layer: nn.Layer, weights: tuple[Tensor, ...]) -> Iterator[None]:
    """Put given weights in the place of a layer's own, unless there are none."""
    own = [
        (part, key, parameter)
        for part in layer.sublayers(include_self=True)
        for key, parameter in part._parameters.items()
        if parameter is not None
    ]
    try:
        for (part, key, _), given in zip(own, weights, strict=bool(weights)):
            is_transposed = isinstance(part, nn.Linear) and key == "weight"
            part._parameters[key] = given.transpose([1, 0]) if is_transposed else given
        yield
    finally:
        for part, key, parameter in own:
            part._parameters[key] = parameter
