"""LayerNorm with a gain and a shift for each row of the batch, as one operator."""

from typing import Any, ClassVar

from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.passes.graph.constants import read_list, read_size
from fastdeploy_diffusion.passes.graph_pass import GraphPass, GraphRule


class FuseAdaptiveNorm(GraphPass):
    """``LayerNormalization``, whose gain and shift ONNX Runtime lets differ from row to row."""

    name: ClassVar[str] = "fuse-adaptive-norm"
    sites = (Site.ADAPTIVE_NORM,)

    def make_rules(self, dialect: Dialect) -> tuple[GraphRule, ...]:
        """Make the rule for the form that Paddle2ONNX writes."""
        return (_AdaptiveNorm(),)

    def refuse(self, dialect: Dialect) -> str:
        """Refuse dialects that take only one gain for all rows."""
        if dialect is Dialect.STANDARD:
            return "OpenVINO takes no LayerNormalization with a gain for each row"
        return ""


class _AdaptiveNorm(GraphRule):
    """Tokens (B, N, dim), gain and shift (B, 1, dim)."""

    def pattern(self, op: Any, x: Any, ones: Any, gain: Any, shift: Any) -> Any:
        normed = op.LayerNormalization(x, ones, _outputs=["normed"])
        return op.Add(op.Mul(normed, gain), shift)

    def check(self, place: Any, *, ones: Any, gain: Any, shift: Any, normed: Any, **_: Any) -> str:
        if set(read_list(ones) or ()) != {1.0}:
            return "it has a gain of its own"
        if normed.producer().attributes.get_int("axis", -1) not in (-1, 2):
            return "it is not over the features"
        rows = [len(each.shape or ()) == 3 and read_size(each, 1) == 1 for each in (gain, shift)]
        return "" if all(rows) else "its gain and shift are not one for each row"

    def rewrite(self, op: Any, x: Any, gain: Any, shift: Any, normed: Any, **_: Any) -> Any:
        epsilon = normed.producer().attributes.get_float("epsilon", 1e-5)
        return op.LayerNormalization(x, gain, shift, axis=-1, epsilon=epsilon)
