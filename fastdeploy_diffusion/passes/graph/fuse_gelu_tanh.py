"""GELU's tanh approximation, which T5 and Flux were trained with, as one operator."""

import math
from typing import Any, ClassVar

from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.passes.graph_pass import GraphPass, GraphRule


class FuseTanhGELU(GraphPass):
    """``Gelu`` of opset 20 with tanh; in ONNX Runtime ``FastGelu``. Never the exact one."""

    name: ClassVar[str] = "fuse-gelu-tanh"
    sites = (Site.TANH_GELU,)

    def make_rules(self, dialect: Dialect) -> tuple[GraphRule, ...]:
        """Make the rule for the form that Paddle2ONNX writes."""
        return (_TanhGELU() if dialect is Dialect.STANDARD else _FastGELU(),)


class _TanhGELU(GraphRule):
    opset = 20

    def pattern(self, op: Any, x: Any) -> Any:
        cubic = op.Mul(op.Mul(op.Mul(x, x), x), [0.044715])
        inner = op.Mul(op.Add(x, cubic), [math.sqrt(2 / math.pi)])
        # A sum with a constant is exported with a factor of one.
        return op.Mul(op.Mul(x, [0.5]), op.Add(op.Mul(op.Tanh(inner), [1.0]), 1.0))

    def rewrite(self, op: Any, x: Any) -> Any:
        return op.Gelu(x, approximate="tanh")


class _FastGELU(_TanhGELU):
    opset = 17

    def rewrite(self, op: Any, x: Any) -> Any:
        return op.FastGelu(x, _domain="com.microsoft")
