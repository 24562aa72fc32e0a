"""Nearest upsampling by two as one operator, where Paddle's layer writes it with broadcasting."""

from typing import Any, ClassVar

from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.passes.graph.constants import read_list, read_size
from fastdeploy_diffusion.passes.graph_pass import GraphPass, GraphRule


class ResizeNearest(GraphPass):
    """``Resize``, which copies whole pixels where channels lie last; broadcasting wants them first.

    ``phase-upsample`` leaves it nothing but a UNet's upsampling to odd sizes.
    """

    name: ClassVar[str] = "resize-nearest"
    sites = None  # it depends on the passes before
    needs_known_sizes: ClassVar[bool] = True

    def make_rules(self, dialect: Dialect) -> tuple[GraphRule, ...]:
        """Make the rule, the same in every dialect."""
        return (_RepeatedPixels(),)


class _RepeatedPixels(GraphRule):
    """Pixels (B, C, H, W), each repeated to (B, C, H, 2, W, 2)."""

    def pattern(self, op: Any, x: Any, axes: Any, times: Any, sizes: Any) -> Any:
        spread = op.Unsqueeze(x, axes)
        # Paddle2ONNX takes the sizes that stay from the value itself.
        return op.Reshape(op.Expand(spread, op.Max(op.Shape(spread), times)), sizes)

    def match(self, place: Any, *, axes: Any, times: Any, **_: Any) -> bool:
        return read_list(axes) == [3, 5] and read_list(times) == [-1, -1, -1, 2, -1, 2]

    def check(self, place: Any, *, x: Any, sizes: Any, **_: Any) -> str:
        channels, height, width = (read_size(x, axis) for axis in (1, 2, 3))
        if channels is None or height is None or width is None:
            return "its height and width are not known"
        doubled = [0, channels, 2 * height, 2 * width]
        return "" if read_list(sizes) == doubled else "it is not put together to twice the size"

    def rewrite(self, op: Any, x: Any, **_: Any) -> Any:
        return op.Resize(
            x,
            None,
            op.Constant(value_floats=[1.0, 1.0, 2.0, 2.0]),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
