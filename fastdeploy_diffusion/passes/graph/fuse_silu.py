"""SiLU, x · sigmoid(x), as one operator; and CLIP's quick GELU, x · sigmoid(1.702 · x)."""

from typing import Any, ClassVar

from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.passes.graph.constants import read_scalar
from fastdeploy_diffusion.passes.graph_pass import GraphPass, GraphRule


class FuseSiLU(GraphPass):
    """``Swish`` of opset 24; in ONNX Runtime ``QuickGelu``, which has the slope as well."""

    name: ClassVar[str] = "fuse-silu"
    sites = (Site.GROUP_NORM_SILU, Site.SILU, Site.QUICK_GELU)

    def make_rules(self, dialect: Dialect) -> tuple[GraphRule, ...]:
        """Make the rules for the slope 1, and for another."""
        return _SiLU(dialect), _QuickGELU(dialect)


class _Swish(GraphRule):
    commutes = True

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.opset = 24 if dialect is Dialect.STANDARD else 17

    def make_swish(self, op: Any, x: Any, slope: float) -> Any:
        if self.dialect is Dialect.STANDARD:
            return op.Swish(x, alpha=slope)
        return op.QuickGelu(x, alpha=slope, _domain="com.microsoft")


class _SiLU(_Swish):
    def pattern(self, op: Any, x: Any) -> Any:
        return op.Mul(x, op.Sigmoid(x))

    def rewrite(self, op: Any, x: Any) -> Any:
        return self.make_swish(op, x, 1.0)


class _QuickGELU(_Swish):
    def pattern(self, op: Any, x: Any, slope: Any) -> Any:
        return op.Mul(x, op.Sigmoid(op.Mul(x, slope)))

    def check(self, place: Any, *, slope: Any, **_: Any) -> str:
        return "" if read_scalar(slope) is not None else "its slope is no known number"

    def rewrite(self, op: Any, x: Any, slope: Any) -> Any:
        return self.make_swish(op, x, read_scalar(slope) or 0.0)
