"""GroupNorm as one operator, where Paddle2ONNX writes five around InstanceNormalization.

No engine that reads ONNX has one operator for GroupNorm and the SiLU after it: an engine that gets
the first as one operator fuses the second itself.
"""

from typing import Any, ClassVar

from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.passes.graph.constants import name_consumers, read_list
from fastdeploy_diffusion.passes.graph_pass import GraphPass, GraphRule


class _FuseGroupNorms(GraphPass):
    before_silu: ClassVar[bool]

    def make_rules(self, dialect: Dialect) -> tuple[GraphRule, ...]:
        """Make the rule for the form that Paddle2ONNX writes."""
        return (_GroupNorm(self.before_silu),)

    def refuse(self, dialect: Dialect) -> str:
        """Refuse dialects whose engine would only expand the operator again, into slower ones."""
        if dialect is Dialect.MICROSOFT:
            return "ONNX Runtime has no kernel for GroupNormalization"
        return ""


class FuseGroupNormSiLU(_FuseGroupNorms):
    """``GroupNormalization`` of opset 21, before SiLU."""

    name: ClassVar[str] = "fuse-group-norm-silu"
    sites = (Site.GROUP_NORM_SILU,)
    before_silu = True


class FuseGroupNorm(_FuseGroupNorms):
    """``GroupNormalization`` of opset 21, before attention."""

    name: ClassVar[str] = "fuse-group-norm"
    sites = (Site.GROUP_NORM,)
    before_silu = False


class ExportedGroupNorm(GraphRule):
    """GroupNorm as Paddle2ONNX writes it."""

    def pattern(
        self, op: Any, x: Any, sizes: Any, ones: Any, zeros: Any, gain: Any, shift: Any
    ) -> Any:
        """Build the pattern."""
        normed = op.InstanceNormalization(op.Reshape(x, sizes), ones, zeros, _outputs=["normed"])
        scaled = op.Mul(op.Reshape(normed, op.Shape(x)), op.Unsqueeze(gain, [1, 2]))
        return op.Add(scaled, op.Unsqueeze(shift, [1, 2]))

    def check(self, place: Any, *, sizes: Any, ones: Any, zeros: Any, **_: Any) -> str:
        """Refuse groups that are not known, or that are more than normalized."""
        groups = read_list(sizes) or []
        if len(groups) != 3 or groups[0] != 0 or groups[1] < 1 or groups[2] != -1:
            return "its groups are not known"
        if set(read_list(ones) or ()) != {1.0} or set(read_list(zeros) or ()) != {0.0}:
            return "its groups have a gain or a shift of their own"
        return ""

    def read_options(self, sizes: Any, normed: Any) -> tuple[int, float]:
        """Read the number of groups, and epsilon."""
        _, groups, _ = read_list(sizes) or (0, 0, 0)
        return int(groups), normed.producer().attributes.get_float("epsilon", 1e-5)


class _GroupNorm(ExportedGroupNorm):
    opset = 21

    def __init__(self, before_silu: bool) -> None:
        self.before_silu = before_silu

    def match(self, place: Any, **_: Any) -> bool:
        consumers = name_consumers(place.output_values[0])
        is_silu = consumers == {"Sigmoid", "Mul"} or consumers == {"Swish"}
        return is_silu == self.before_silu

    def rewrite(
        self, op: Any, x: Any, sizes: Any, gain: Any, shift: Any, normed: Any, **_: Any
    ) -> Any:
        groups, epsilon = self.read_options(sizes, normed)
        return op.GroupNormalization(x, gain, shift, num_groups=groups, epsilon=epsilon)
