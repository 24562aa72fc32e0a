"""Normalization by the root mean square (Zhang & Sennrich, 2019), by primitives that all export."""

import paddle
from paddle import Tensor, nn


class RMSNorm(nn.Layer):
    """Divides by the root mean square of the last axis and scales; no mean, no bias."""

    def __init__(self, dim: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.epsilon = epsilon
        ones = nn.initializer.Constant(1.0)
        self.weight = self.create_parameter([dim], default_initializer=ones)

    def forward(self, values: Tensor) -> Tensor:
        """Map (…, dim) to (…, dim)."""
        mean_square = (values * values).mean(axis=-1, keepdim=True)
        return values / paddle.sqrt(mean_square + self.epsilon) * self.weight
