"""Embeddings of the timestep and of SDXL's sizes."""

import math

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F


class Timesteps(nn.Layer):
    """Sinusoids of a number (Vaswani et al., 2017), as the diffusion UNets use them.

    Args:
        flip_sin_to_cos: Cosines first, then sines.
        shift: Subtracted from the divisor of the frequencies' exponents.
    """

    def __init__(self, dim: int, flip_sin_to_cos: bool = True, shift: float = 0.0) -> None:
        super().__init__()
        self.dim = dim
        self.flip_sin_to_cos = flip_sin_to_cos
        half = dim // 2
        exponents = -math.log(10000) * np.arange(half, dtype=np.float32) / (half - shift)
        frequencies = paddle.to_tensor(np.exp(exponents.astype(np.float32)))
        self.register_buffer("frequencies", frequencies, persistable=False)

    def forward(self, timestep: Tensor) -> Tensor:
        """Map numbers (N,) float32 to (N, dim)."""
        angles = timestep.unsqueeze(1) * self.frequencies.unsqueeze(0)
        waves = [angles.sin(), angles.cos()]
        embedding = paddle.concat(waves[::-1] if self.flip_sin_to_cos else waves, axis=1)
        if self.dim % 2:
            embedding = F.pad(embedding, [0, 0, 0, 1])
        return embedding


class TimestepEmbedding(nn.Layer):
    """Two linear layers with a SiLU between them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, outputs)
        self.linear_2 = nn.Linear(outputs, outputs)

    def forward(self, sinusoids: Tensor) -> Tensor:
        """Map (B, inputs) to (B, outputs)."""
        return self.linear_2(F.silu(self.linear_1(sinusoids)))
