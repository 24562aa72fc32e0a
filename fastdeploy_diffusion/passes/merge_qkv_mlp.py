"""All that a single-stream block of Flux projects its tokens to, as one.

Queries, keys, values and the feed-forward's hidden layer read the same tokens: one matrix product
of seven times the width instead of four, as the original checkpoints have it (``linear1``).
"""

from collections.abc import Mapping
from itertools import accumulate
from operator import attrgetter
from types import MethodType
from typing import Any, ClassVar

from paddle import Tensor, nn

from fastdeploy_diffusion.models.flux_blocks import FluxSingleTransformerBlock
from fastdeploy_diffusion.passes.base import Derivation, LayerPass
from fastdeploy_diffusion.passes.expectations import count_single_blocks
from fastdeploy_diffusion.passes.stack_linears import check_biases, stack_linears

_PROJECTIONS = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")


class MergeQKVMLP(LayerPass):
    """Queries, keys, values and hidden layer of single-stream blocks."""

    name: ClassVar[str] = "merge-qkv-mlp"

    def match(self, layer: nn.Layer) -> bool:
        """A single-stream block that is not merged yet."""
        return isinstance(layer, FluxSingleTransformerBlock) and not hasattr(layer, "merged")

    def check(self, layer: nn.Layer) -> str:
        """All must have a bias, or none."""
        return check_biases(layer, _PROJECTIONS)

    def rewrite(self, layer: Any) -> Mapping[str, Derivation]:
        """Put one linear layer in the place of four."""
        widths = [attrgetter(name)(layer).weight.shape[1] for name in _PROJECTIONS]
        stops = list(accumulate(widths))
        layer.shares = list(map(slice, [0, *stops], stops))
        derivations = stack_linears(layer, _PROJECTIONS, "merged")
        layer.project = MethodType(_project, layer)
        return derivations

    def expect(self, network: nn.Layer) -> int | None:
        """Every single-stream block of the config."""
        return count_single_blocks(network)


def _project(self: Any, tokens: Tensor) -> list[Tensor]:
    # By slices: a split into parts of unequal widths cannot be exported.
    merged = self.merged(tokens)
    return [merged[:, :, share] for share in self.shares]
