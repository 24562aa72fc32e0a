"""Splits GEGLU's one product, whose result is cut in two, into two products.

A runtime can then fuse GELU into the gate's product, and has nothing to cut: the same
multiplications, without a pass over the widest tensor of the transformer.
"""

from typing import Any, ClassVar

from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.passes.graph.constants import name_consumers, read_list, read_size
from fastdeploy_diffusion.passes.graph_pass import GraphPass, GraphRule


class SplitGEGLU(GraphPass):
    """Value and gate of every GEGLU, each with its half of the weight."""

    name: ClassVar[str] = "split-geglu"
    sites = (Site.GEGLU,)

    def make_rules(self, dialect: Dialect) -> tuple[GraphRule, ...]:
        """Make the rules, the same in every dialect."""
        return (_GEGLU(),)


class _GEGLU(GraphRule):
    def pattern(self, op: Any, tokens: Any, weight: Any, bias: Any, sizes: Any) -> Any:
        product = op.Add(op.MatMul(tokens, op.Transpose(weight, perm=[1, 0])), bias)
        return op.Split(product, sizes, _outputs=["value", "gate"])

    def match(self, place: Any, *, value: Any, gate: Any, **_: Any) -> bool:
        # GELU as one operator, or as Paddle2ONNX writes it.
        is_gelu = name_consumers(gate) in ({"Gelu"}, {"Div", "Mul"})
        return is_gelu and name_consumers(value) == {"Mul"}

    def check(
        self, place: Any, *, tokens: Any, weight: Any, bias: Any, sizes: Any, value: Any, **_: Any
    ) -> str:
        halves, width = read_list(sizes), read_size(weight, 0)
        if width is None or halves != [width / 2, width / 2]:
            return "value and gate are not halves"
        rank = len(tokens.shape or ())
        axis = value.producer().attributes.get_int("axis", 0)
        if rank < 2 or axis not in (-1, rank - 1):
            return "it is not cut along its features"
        return "" if read_size(bias, 0) == width else "its bias is not one for each feature"

    def rewrite(self, op: Any, tokens: Any, weight: Any, bias: Any, sizes: Any, **_: Any) -> Any:
        half = (read_size(weight, 0) or 0) // 2
        return tuple(
            _apply_rows(op, tokens, weight, bias, start, start + half) for start in (0, half)
        )


def _apply_rows(op: Any, tokens: Any, weight: Any, bias: Any, start: int, stop: int) -> Any:
    """Multiply with some rows of a weight [out, in]: engines cut constants when they load."""
    bounds = [op.Constant(value_ints=[bound]) for bound in (start, stop, 0)]
    rows = op.Transpose(op.Slice(weight, *bounds), perm=[1, 0])
    return op.Add(op.MatMul(tokens, rows), op.Slice(bias, *bounds))
