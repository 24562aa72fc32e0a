"""RMSNorm (Zhang & Sennrich, 2019) as one operator."""

from typing import Any, ClassVar

from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.passes.graph.constants import read_scalar, read_size
from fastdeploy_diffusion.passes.graph_pass import GraphPass, GraphRule


class FuseRMSNorm(GraphPass):
    """``RMSNormalization`` of opset 23; in ONNX Runtime its own, which is older."""

    name: ClassVar[str] = "fuse-rms-norm"
    sites = (Site.RMS_NORM,)

    def make_rules(self, dialect: Dialect) -> tuple[GraphRule, ...]:
        """Make the rule for the form that Paddle2ONNX writes."""
        return (_RMSNorm() if dialect is Dialect.STANDARD else _SimplifiedLayerNorm(),)


class _RMSNorm(GraphRule):
    opset = 23

    def pattern(self, op: Any, x: Any, epsilon: Any, weight: Any) -> Any:
        # A sum with a constant is exported with a factor of one.
        mean_square = op.Mul(op.ReduceMean(op.Mul(x, x), axes=[-1], keepdims=1), [1.0])
        return op.Mul(op.Div(x, op.Sqrt(op.Add(mean_square, epsilon))), weight)

    def check(self, place: Any, *, x: Any, epsilon: Any, weight: Any) -> str:
        if read_scalar(epsilon) is None:
            return "its epsilon is no known number"
        width = read_size(x, -1)
        if width is None or list(weight.shape or ()) != [width]:
            return "its weight is not one for each feature"
        return ""

    def rewrite(self, op: Any, x: Any, epsilon: Any, weight: Any) -> Any:
        return op.RMSNormalization(x, weight, axis=-1, epsilon=read_scalar(epsilon))


class _SimplifiedLayerNorm(_RMSNorm):
    opset = 17

    def rewrite(self, op: Any, x: Any, epsilon: Any, weight: Any) -> Any:
        # ONNX Runtime keeps it in the standard's own domain.
        return op.SimplifiedLayerNormalization(x, weight, axis=-1, epsilon=read_scalar(epsilon))
