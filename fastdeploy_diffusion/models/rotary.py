"""Rotary position embedding over several axes (Su et al., 2021), as Flux uses it."""

import numpy as np
import paddle
from paddle import Tensor, nn

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines of the angles, each (N, head_dim / 2)."""


class RotaryEmbedding(nn.Layer):
    """Angles of positions: each axis rotates its own share of a head's pairs.

    Args:
        axes_dims: Width of each axis' share, even; together the width of a head.
        theta: Base of the frequencies.
    """

    def __init__(self, axes_dims: tuple[int, ...], theta: float = 10000.0) -> None:
        super().__init__()
        self.axes = len(axes_dims)
        for axis, dim in enumerate(axes_dims):
            frequencies = theta ** -(np.arange(0, dim, 2, dtype=np.float64) / dim)
            tensor = paddle.to_tensor(frequencies.astype(np.float32))
            self.register_buffer(f"frequencies_{axis}", tensor, persistable=False)

    def forward(self, ids: Tensor) -> Rotation:
        """Map positions (N, axes) float32 to cosines and sines, each (N, head_dim / 2)."""
        angles = paddle.concat(
            [
                ids[:, axis : axis + 1] * getattr(self, f"frequencies_{axis}").unsqueeze(0)
                for axis in range(self.axes)
            ],
            axis=1,
        )
        return angles.cos(), angles.sin()


def rotate(heads: Tensor, rotation: Rotation) -> Tensor:
    """Rotate each pair of neighbours (0 and 1, 2 and 3 …) by its angle.

    Args:
        heads: Queries or keys, (B, N, heads, head_dim).
        rotation: Of the N positions.

    Returns:
        (B, N, heads, head_dim).
    """
    cosines, sines = (each.unsqueeze([0, 2]) for each in rotation)  # (1, N, 1, head_dim / 2)
    count, dim = heads.shape[2:]
    even, odd = heads.reshape([0, 0, count, dim // 2, 2]).chunk(2, axis=-1)
    even, odd = even.squeeze(-1), odd.squeeze(-1)
    turned = [even * cosines - odd * sines, even * sines + odd * cosines]
    return paddle.stack(turned, axis=-1).reshape([0, 0, count, dim])


def rotate_halves(heads: Tensor, rotation: Rotation) -> Tensor:
    """Rotate each number of a head's first half with that of the second half, by their angle.

    The same as `rotate`, for pairs that lie half a head apart; arguments as there.
    """
    cosines, sines = (each.unsqueeze([0, 2]) for each in rotation)  # (1, N, 1, head_dim / 2)
    first, second = heads.chunk(2, axis=-1)
    turned = [first * cosines - second * sines, first * sines + second * cosines]
    return paddle.concat(turned, axis=-1)
