"""GroupNorm by the sums of each channel, which keeps channels last from convolution to convolution.

Written as a norm of groups, GroupNorm takes apart the axis of channels, for which engines put the
channels first, and last again for the next convolution. Here height and width are summed for each
channel; all that concerns groups is done to these few numbers, and the picture itself is only
multiplied and added to, once.

The variance is the mean square less the square of the mean. Where the mean is much larger than the
deviation, that loses digits: of float32, in which the sums are, not of the pictures' half
precision, which has lost far more by then.
"""

from typing import Any, ClassVar

from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.passes.graph.constants import read_size
from fastdeploy_diffusion.passes.graph.fuse_group_norm import ExportedGroupNorm
from fastdeploy_diffusion.passes.graph_pass import GraphPass, GraphRule

_PIXELS = [2, 3]
_FLOAT, _BFLOAT16 = 1, 16  # as ONNX numbers them


class ChannelGroupNorm(GraphPass):
    """Every GroupNorm of pictures, fused to one operator before or not."""

    name: ClassVar[str] = "channel-group-norm"
    sites = (Site.GROUP_NORM_SILU, Site.GROUP_NORM)

    def make_rules(self, dialect: Dialect) -> tuple[GraphRule, ...]:
        """Make the rules for both forms."""
        return _ExportedNorm(), _FusedNorm()

    def refuse(self, dialect: Dialect) -> str:
        """Refuse dialects whose engine has no other layout to keep."""
        if dialect is Dialect.MICROSOFT:
            return "ONNX Runtime keeps channels first"
        return ""


class _ExportedNorm(ExportedGroupNorm):
    """As Paddle2ONNX writes it."""

    def check(self, place: Any, **found: Any) -> str:
        return super().check(place, **found) or _check_picture(found["x"])

    def rewrite(
        self, op: Any, x: Any, sizes: Any, gain: Any, shift: Any, normed: Any, **_: Any
    ) -> Any:
        groups, epsilon = self.read_options(sizes, normed)
        return _normalize(op, x, gain, shift, groups, epsilon)


class _FusedNorm(GraphRule):
    """``GroupNormalization``."""

    opset = 21

    def pattern(self, op: Any, x: Any, gain: Any, shift: Any) -> Any:
        return op.GroupNormalization(x, gain, shift, _outputs=["normed"])

    def check(self, place: Any, *, x: Any, **_: Any) -> str:
        return _check_picture(x)

    def rewrite(self, op: Any, x: Any, gain: Any, shift: Any, normed: Any, **_: Any) -> Any:
        attributes = normed.producer().attributes
        groups, epsilon = attributes["num_groups"].as_int(), attributes.get_float("epsilon", 1e-5)
        return _normalize(op, x, gain, shift, groups, epsilon)


def _check_picture(x: Any) -> str:
    is_picture = len(x.shape or ()) == 4 and read_size(x, 1) is not None
    return "" if is_picture else "it is not of pictures with a known number of channels"


def _normalize(op: Any, x: Any, gain: Any, shift: Any, groups: int, epsilon: float) -> Any:
    """Normalize pictures (B, C, H, W)."""

    def number(value: float) -> Any:
        return op.Constant(value_floats=[value])

    def split(values: Any) -> Any:
        """Reshape numbers of channels to (B, groups, C / groups), or without a batch to (1, …)."""
        return op.Reshape(values, op.Constant(value_ints=[-1, groups, width // groups]))

    def average(values: Any) -> Any:
        return op.ReduceMean(values, axes=[2], keepdims=1)  # (B, groups, 1)

    def join(values: Any) -> Any:
        return op.Reshape(values, op.Constant(value_ints=[-1, width, 1, 1]))

    # Written without differences, of which OpenVINO makes operators of its own, and rounds them in
    # half precision: what is taken away has the opposite sign from the start.
    width = read_size(x, 1) or 0
    # It squares and adds in one operator: a picture of squares would be rounded.
    norms = op.ReduceL2(x, axes=_PIXELS, keepdims=1)
    squares = split(op.Mul(op.Mul(norms, norms), _invert_pixels(op, x)))
    means = split(op.Mul(op.ReduceMean(x, axes=_PIXELS, keepdims=1), number(-1.0)))
    mean = average(means)
    variance = op.Add(average(squares), op.Mul(mean, op.Mul(mean, number(-1.0))))
    # Rounding may leave less than nothing, where all numbers are the same.
    variance = op.Add(op.Max(variance, number(0.0)), number(epsilon))
    reciprocal = op.Pow(variance, number(-0.5))
    scale = op.Mul(split(gain), reciprocal)
    # Pictures in half precision are centred by a number that it holds exactly, and the rest of the
    # mean is in the shift: of large means, nothing is lost.
    centre = op.Cast(op.Cast(means, to=_BFLOAT16), to=_FLOAT)
    opposite = op.Mul(split(op.Mul(gain, number(-1.0))), reciprocal)
    rest = op.Add(op.Add(split(shift), op.Mul(mean, scale)), op.Mul(centre, opposite))
    return op.Add(op.Mul(op.Add(x, join(centre)), join(scale)), join(rest))


def _invert_pixels(op: Any, x: Any) -> Any:
    """Make one over the number of pixels."""
    height, width = read_size(x, 2), read_size(x, 3)
    if height is not None and width is not None:
        return op.Constant(value_floats=[1.0 / (height * width)])
    pixels = op.ReduceProd(op.Shape(x, start=2), axes=[0], keepdims=1)
    return op.Reciprocal(op.Cast(pixels, to=_FLOAT))
