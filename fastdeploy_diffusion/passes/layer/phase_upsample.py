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
    # (B, 4 · O, rows + 1, columns + 1): an odd phase starts one window later.
    phases = self.phases(features).split(4, axis=1)
    first, second = slice(None, -1), slice(1, None)
    windows = [
        phase[:, :, row, column]
        for phase, (row, column) in zip(phases, product((first, second), repeat=2), strict=True)
    ]
    even = paddle.stack(windows[:2], axis=4)  # (B, O, rows, columns, 2)
    odd = paddle.stack(windows[2:], axis=4)
    return paddle.stack([even, odd], axis=3).reshape([0, outputs, rows + rows, columns + columns])
