"""Latents as Flux's transformer takes them: each token is a square of two by two."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def pack(latents: FloatArray) -> FloatArray:
    """Turn latents (B, C, 2H, 2W) into tokens (B, H · W, 4C)."""
    rows, channels, height, width = latents.shape
    squares = latents.reshape(rows, channels, height // 2, 2, width // 2, 2)
    packed: FloatArray = squares.transpose(0, 2, 4, 1, 3, 5).reshape(rows, -1, 4 * channels)
    return packed


def unpack(tokens: FloatArray, height: int, width: int) -> FloatArray:
    """Turn tokens (B, H · W, 4C) into latents (B, C, 2H, 2W)."""
    rows, _, wide = tokens.shape
    squares = tokens.reshape(rows, height, width, wide // 4, 2, 2)
    latents: FloatArray = squares.transpose(0, 3, 1, 4, 2, 5)
    return latents.reshape(rows, wide // 4, 2 * height, 2 * width)


def list_positions(height: int, width: int) -> FloatArray:
    """List the position of each token: 0, row, column; (H · W, 3) float32."""
    rows, columns = np.indices((height, width), np.float32)
    return np.stack([np.zeros_like(rows), rows, columns], axis=-1).reshape(-1, 3)
