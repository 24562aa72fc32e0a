"""Convolutions whose bias costs little on Paddle's CPU kernels."""

from types import MethodType

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F


def speed_up(network: nn.Layer) -> None:
    """Let every convolution of ``network`` add its bias as a tensor of the output's shape.

    Adding (1, C, 1, 1) to (N, C, H, W) takes Paddle's CPU kernel longer than many of the
    convolutions themselves, and fifty times as long as adding two tensors of one shape; an outer
    product makes the second tensor for next to nothing.
    """
    for layer in network.sublayers():
        if isinstance(layer, nn.Conv2D) and layer.bias is not None:
            layer.forward = MethodType(_convolve, layer)


def _convolve(self: nn.Conv2D, x: Tensor) -> Tensor:
    result = F.conv2d(x, self.weight, None, self._stride, self._padding)
    batch, channels, height, width = result.shape
    columns = self.bias.expand([batch, channels]).unsqueeze(2)
    rows = paddle.ones([1, height * width])
    return result + (columns @ rows).reshape(result.shape)
