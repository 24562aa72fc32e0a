"""Nearest upsampling by two and a 3×3 convolution as one 2×2 convolution before the upsampling.

After nearest upsampling the three rows under a kernel are copies of only two, so their weights can
be added up beforehand: which ones depends on whether the row is even or odd. Four such phases (even
and odd rows and columns) take 16 multiplications where there were 36; the sums are the same.
"""

from collections.abc import Mapping
from itertools import product
from types import MethodType
from typing import Any, ClassVar

import paddle
from paddle import LazyGuard, Tensor, nn
from paddle.nn import functional as F

from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.models.resnet import Upsample2D
from fastdeploy_diffusion.models.sizes import are_known, read_sizes
from fastdeploy_diffusion.passes.base import Derivation, LayerPass, MadeOf


class PhaseUpsample(LayerPass):
    """`Upsample2D`, where it doubles exactly; an odd size keeps the plain way."""

    name: ClassVar[str] = "phase-upsample"
    sites = (Site.UPSAMPLER,)

    def match(self, layer: nn.Layer) -> bool:
        """Match an upsampler that is not rewritten yet."""
        return isinstance(layer, Upsample2D) and not hasattr(layer, "phases")

    def check(self, layer: nn.Layer) -> str:
        """Accepts only a 3×3 convolution with a border of one."""
        shape = list(layer.conv.weight.shape[2:])
        return "" if shape == [3, 3] else f"its kernel is {shape[0]} x {shape[1]}"

    def rewrite(self, layer: nn.Layer) -> Mapping[str, MadeOf]:
        """Add the convolution of all four phases; the plain one stays for odd sizes."""
        outputs, inputs = layer.conv.weight.shape[:2]
        with LazyGuard():
            layer.phases = nn.Conv2D(inputs, 4 * outputs, 2, padding=1)
        layer.phases.eval()
        layer.forward = MethodType(_upsample, layer)
        return {
            "phases.weight": Derivation(("conv.weight",), "phases"),
            "phases.bias": Derivation(("conv.bias",), "tile", {"times": 4}),
        }


def _upsample(self: Any, features: Tensor, size: tuple[Any, Any] | None = None) -> Tensor:
    _, _, rows, columns = read_sizes(features)
    # A size that a trace leaves open may be odd, at which the phases are wrong at the border.
    if size is not None and not (are_known(*size) and size == (2 * rows, 2 * columns)):
        return Upsample2D.forward(self, features, size)
    outputs = self.conv.weight.shape[0]
    # Four convolutions, each with the border on its own side: of one, all windows would have to be
    # cut out again.
    phases = [
        F.conv2d(
            features,
            self.phases.weight[index * outputs : (index + 1) * outputs],
            self.phases.bias[index * outputs : (index + 1) * outputs],
            padding=[1 - row, row, 1 - column, column],
        )
        for index, (row, column) in enumerate(product((0, 1), repeat=2))
    ]  # (B, O, rows, columns)
    # Engines know this as one operator, from depth to space.
    pixels = paddle.concat(phases, axis=1).reshape([-1, 2, 2, outputs, rows, columns])
    pixels = pixels.transpose([0, 3, 4, 1, 5, 2])  # (B, O, rows, 2, columns, 2)
    return pixels.reshape([-1, outputs, rows + rows, columns + columns])
