"""Flux's blocks, computed by what Paddle's CPU kernels do quickly."""

from types import MethodType

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from fastdeploy_diffusion.models import flux_blocks
from fastdeploy_diffusion.models.flux import FluxTransformer2DModel
from fastdeploy_diffusion.models.rotary import Rotation


def speed_up_blocks(transformer: FluxTransformer2DModel) -> None:
    """Let Flux's blocks train two to three times as fast; the numbers stay.

    Slow on Paddle's CPU kernels are tensors broadcast against each other, neighbours taken apart
    and put together again, and a GELU of ten operations. All transformers of this process get the
    faster functions; ``transformer`` itself gets faster linear layers.
    """
    flux_blocks.FluxAttention.rotate = staticmethod(_rotate)
    flux_blocks.gelu_tanh = _gelu
    flux_blocks.shift_and_scale = _shift_and_scale
    for layer in transformer.sublayers():
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            layer.forward = MethodType(_multiply_and_add, layer)


def _rotate(heads: Tensor, rotation: Rotation) -> Tensor:
    cosines, sines = (
        each.repeat_interleave(2, axis=1).unsqueeze([0, 2]).expand(heads.shape) for each in rotation
    )
    dim = heads.shape[-1]
    # The pair (a, b) becomes (-b, a).
    swap = np.zeros((dim, dim), np.float32)
    swap[np.arange(1, dim, 2), np.arange(0, dim, 2)] = -1
    swap[np.arange(0, dim, 2), np.arange(1, dim, 2)] = 1
    return heads * cosines + paddle.matmul(heads, paddle.to_tensor(swap)) * sines


def _gelu(values: Tensor) -> Tensor:
    return F.gelu(values, approximate=True)


def _shift_and_scale(normed: Tensor, shift: Tensor, gain: Tensor) -> Tensor:
    column = paddle.ones([normed.shape[0], normed.shape[1], 1])
    return normed * (column @ gain) + column @ shift


def _multiply_and_add(self: nn.Linear, x: Tensor) -> Tensor:
    rows = x.reshape([-1, x.shape[-1]])
    result = paddle.addmm(self.bias.unsqueeze(0), rows, self.weight)
    return result.reshape([*x.shape[:-1], result.shape[-1]])
