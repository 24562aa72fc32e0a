"""Rotary embedding of pairs that lie half a head apart, and not side by side.

Neighbours have to be taken apart and put together again, number by number; halves are blocks. The
order of pairs is invisible outside attention: queries and keys are multiplied with each other
alone, and the same order in both leaves every product as it was. So the rows of their projections,
and the norms' weights, are permuted once, when the weights are read.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from paddle import nn

from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.models.rotary import rotate_halves
from fastdeploy_diffusion.passes.base import Derivation, LayerPass, MadeOf

_PROJECTIONS = ("to_q", "to_k", "add_q_proj", "add_k_proj")
_NORMS = ("norm_q", "norm_k", "norm_added_q", "norm_added_k")


class RotateHalves(LayerPass):
    """Queries and keys of attention with rotary embedding."""

    name: ClassVar[str] = "rotate-halves"
    sites = (Site.ROTARY_ATTENTION,)

    def match(self, layer: nn.Layer) -> bool:
        """Match attention that rotates neighbours, with unmerged projections."""
        turns_neighbours = getattr(layer, "rotate", rotate_halves) is not rotate_halves
        return turns_neighbours and hasattr(layer, "to_q")

    def check(self, layer: nn.Layer) -> str:
        """Accepts every such attention."""
        return ""

    def rewrite(self, layer: Any) -> Mapping[str, MadeOf]:
        """Rotate halves, and permute the weights to match."""
        layer.rotate = rotate_halves
        parts = [(name, layer.heads) for name in _PROJECTIONS] + [(name, 1) for name in _NORMS]
        return {
            f"{name}.{kind}": Derivation((f"{name}.{kind}",), "part-pairs", {"heads": heads})
            for name, heads in parts
            if hasattr(layer, name)
            for kind, _ in getattr(layer, name).named_parameters()
        }
