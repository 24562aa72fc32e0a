"""Residual blocks and upsamplers with channels last, where Winograd's convolutions want them so.

Engines transpose between a GroupNorm, which they compute channel by channel, and a convolution,
which they compute pixel by pixel. With channels last from the first norm to the last convolution, a
block needs no transpose inside; between two such blocks the engine cancels the one's transpose with
the other's. The numbers are the same sums.
"""

from collections.abc import Mapping
from types import MethodType
from typing import Any, ClassVar

from paddle import Tensor, nn
from paddle.nn import functional as F

from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.models.resnet import ResnetBlock2D, Upsample2D
from fastdeploy_diffusion.models.sizes import are_known, read_sizes
from fastdeploy_diffusion.passes.base import LayerPass, MadeOf
from fastdeploy_diffusion.passes.layer.winograd_convolution import convolve_tiles
from fastdeploy_diffusion.runtime.pass_result import PassResult


class ChannelsLast(LayerPass):
    """Blocks all of whose 3×3 convolutions are Winograd's; another pass makes them so, before."""

    name: ClassVar[str] = "channels-last"
    sites = None  # it depends on the passes before
    needs_known_sizes: ClassVar[bool] = True

    def apply(self, network: nn.Layer) -> tuple[PassResult, dict[str, MadeOf]]:
        """Rewrite a network, whose census loses the norms that blocks compute channels last."""
        before = _count_norms(network)
        applied = super().apply(network)
        changed: Any = network
        if (taken := _count_norms(network) - before) and hasattr(network, "census"):
            left = changed.census[Site.GROUP_NORM_SILU] - taken
            changed.census = {**changed.census, Site.GROUP_NORM_SILU: left}
        return applied

    def match(self, layer: nn.Layer) -> bool:
        """Match a residual block or an upsampler that a Winograd pass has rewritten."""
        convolutions = _list_convolutions(layer)
        return (
            bool(convolutions)
            and all(hasattr(each, "transformed") for each in convolutions)
            and not hasattr(layer, "phases")
            and not getattr(layer, "is_channels_last", False)
        )

    def check(self, layer: nn.Layer) -> str:
        """Accepts every such block."""
        return ""

    def rewrite(self, layer: nn.Layer) -> Mapping[str, MadeOf]:
        """Reorder the axes of the computation; the weights stay as they are."""
        layer.is_channels_last = True
        is_block = isinstance(layer, ResnetBlock2D)
        layer.forward = MethodType(_run_block if is_block else _upsample, layer)
        return {}


def _count_norms(network: nn.Layer) -> int:
    """Count the GroupNorms that no graph pass finds any more: two in each block."""
    blocks = (each for each in network.sublayers() if isinstance(each, ResnetBlock2D))
    return 2 * len([each for each in blocks if getattr(each, "is_channels_last", False)])


def _list_convolutions(layer: Any) -> list[Any]:
    if isinstance(layer, ResnetBlock2D):
        return [layer.conv1, layer.conv2]
    return [layer.conv] if isinstance(layer, Upsample2D) else []


def _run_block(self: Any, features: Tensor, time: Tensor | None = None) -> Tensor:
    """Run `ResnetBlock2D.forward`, channels last."""
    _, _, height, width = read_sizes(features)
    if not are_known(height, width):
        return ResnetBlock2D.forward(self, features, time)
    features = features.transpose([2, 3, 0, 1])  # (H, W, B, C)
    hidden = convolve_tiles(self.conv1, F.silu(_normalize(self.norm1, features)), height, width)
    if time is not None:
        hidden = hidden + self.project_time(time).unsqueeze([0, 1])
    hidden = convolve_tiles(self.conv2, F.silu(_normalize(self.norm2, hidden)), height, width)
    if self.conv_shortcut is not None:
        features = features.matmul(self.conv_shortcut.weight.flatten(1), transpose_y=True)
        features = features + self.conv_shortcut.bias
    return (features + hidden).transpose([2, 3, 0, 1])


def _upsample(self: Any, features: Tensor, size: tuple[Any, Any] | None = None) -> Tensor:
    """Run `Upsample2D.forward`, where tiles repeat pixels instead of a larger picture."""
    _, _, rows, columns = read_sizes(features)
    if not are_known(rows, columns, *(size or ())):
        return Upsample2D.forward(self, features, size)
    height, width = size or (2 * rows, 2 * columns)
    turned = features.transpose([2, 3, 0, 1])
    return convolve_tiles(self.conv, turned, height, width, repeat=2).transpose([2, 3, 0, 1])


def _normalize(norm: Any, features: Tensor) -> Tensor:
    """Apply GroupNorm to (H, W, B, C)."""
    groups, channels = norm._num_groups, features.shape[3]

    def average(values: Tensor) -> Tensor:
        """Average over each group, for each of its channels: (1, 1, B, C)."""
        sums = values.flatten(0, 1).mean(axis=0)  # (B, C)
        means = sums.reshape([-1, groups, channels // groups]).mean(axis=2, keepdim=True)
        spread = means.expand([-1, -1, channels // groups])
        return spread.reshape([1, 1, -1, channels])

    distance = features - average(features)
    scale = norm.weight / (average(distance * distance) + norm._epsilon).sqrt()
    return distance * scale + norm.bias
