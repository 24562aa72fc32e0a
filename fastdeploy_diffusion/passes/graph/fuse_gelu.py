"""Exact GELU (Hendrycks & Gimpel, 2016), with the error function, as one operator."""

from typing import Any, ClassVar

from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.passes.graph_pass import GraphPass, GraphRule


class FuseGELU(GraphPass):
    """``Gelu`` of opset 20; in ONNX Runtime its own, which is older. Never the one with tanh."""

    name: ClassVar[str] = "fuse-gelu"
    sites = (Site.GEGLU, Site.GELU)

    def make_rules(self, dialect: Dialect) -> tuple[GraphRule, ...]:
        """Make the rule for the form that Paddle2ONNX writes."""
        return (_ErfGELU() if dialect is Dialect.STANDARD else _MicrosoftGELU(),)


class _ErfGELU(GraphRule):
    opset = 20

    def pattern(self, op: Any, x: Any) -> Any:
        doubled = op.Mul(x, op.Add(op.Erf(op.Div(x, 2**0.5)), 1.0))
        return op.Mul(doubled, 0.5)

    def rewrite(self, op: Any, x: Any) -> Any:
        return op.Gelu(x)


class _MicrosoftGELU(_ErfGELU):
    opset = 17

    def rewrite(self, op: Any, x: Any) -> Any:
        return op.Gelu(x, _domain="com.microsoft")
