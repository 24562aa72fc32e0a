"""The GELU that T5 and Flux were trained with."""

import math

import paddle
from paddle import Tensor


def gelu_tanh(values: Tensor) -> Tensor:
    """Apply GELU's tanh approximation (Hendrycks & Gimpel, 2016).

    Written out, because Paddle2ONNX turns ``F.gelu(approximate=True)`` into the exact GELU.
    """
    inner = math.sqrt(2.0 / math.pi) * (values + 0.044715 * (values * values * values))
    return 0.5 * values * (1.0 + paddle.tanh(inner))
