"""Merges all projections of a single-stream block into one.

Queries, keys, values and the feed-forward's hidden layer read the same tokens: one matrix product
of seven times the width instead of four, as the original checkpoints have it (``linear1``).
"""

from collections.abc import Mapping
from itertools import accumulate
from operator import attrgetter
from types import MethodType
from typing import Any, ClassVar

from paddle import Tensor, nn

from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.passes.base import LayerPass, MadeOf
from fastdeploy_diffusion.passes.layer.stack_linears import check_biases, stack_linears


class MergeQKVMLP(LayerPass):
    """Queries, keys, values and hidden layer of single-stream blocks."""

    name: ClassVar[str] = "merge-qkv-mlp"
    sites = (Site.QKV_MLP,)

    def match(self, layer: nn.Layer) -> bool:
        """Match a single-stream block that is not merged yet."""
        return hasattr(layer, "projections") and not hasattr(layer, "merged")

    def check(self, layer: nn.Layer) -> str:
        """Accepts projections that all have a bias, or none."""
        return check_biases(layer, layer.projections)

    def rewrite(self, layer: Any) -> Mapping[str, MadeOf]:
        """Replace four linear layers by one."""
        widths = [attrgetter(name)(layer).weight.shape[1] for name in layer.projections]
        stops = list(accumulate(widths))
        layer.shares = list(map(slice, [0, *stops], stops))
        derivations = stack_linears(layer, layer.projections, "merged")
        layer.project = MethodType(_project, layer)
        return derivations


def _project(self: Any, tokens: Tensor) -> list[Tensor]:
    # By slices: a split into parts of unequal widths cannot be exported.
    merged = self.merged(tokens)
    return [merged[:, :, share] for share in self.shares]
