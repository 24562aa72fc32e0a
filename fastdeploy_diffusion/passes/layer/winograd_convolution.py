"""A convolution by Winograd's algorithm, channels last."""

from typing import Any

import numpy as np
import paddle
from paddle import Tensor
from paddle.nn import functional as F

from fastdeploy_diffusion.passes.layer.winograd_matrices import TRANSFORMS, FloatArray


def convolve_tiles(
    convolution: Any, features: Tensor, height: int, width: int, repeat: int = 1
) -> Tensor:
    """Convolve by the transformed weights that a Winograd pass has added.

    Args:
        convolution: A 3×3 `Conv2D` with ``tile`` and ``transformed``.
        features: (Y, X, B, I): channels last, and the batch beside them, so that it may be of any
            size.
        height: Of the result, known: Y times ``repeat``, or less by under that.
        width: Of the result, likewise.
        repeat: How often each pixel stands in both directions: 2 doubles the resolution first.

    Returns:
        (height, width, B, O).
    """
    transforms, tile = TRANSFORMS[convolution.tile], convolution.tile
    points, outputs, inputs = convolution.transformed.shape
    rows, columns = -(-height // tile), -(-width // tile)
    # As a volume, for this is what Paddle pads: batch and channels are one axis of it.
    volume = features.flatten(2).unsqueeze([0, 1])
    padded = F.pad(volume, [0, 0, 1, 1, 1, 1], data_format="NCDHW")
    across = padded.shape[3]
    pixels = padded.reshape([padded.shape[2] * across, -1, inputs])
    # Added up in the graph: written out, the numbers would make it megabytes large.
    y = paddle.assign(transforms.find_pixels(height, repeat) * across).unsqueeze([1, 3])
    x = paddle.assign(transforms.find_pixels(width, repeat)).unsqueeze([0, 2])
    tiles = paddle.gather(pixels, (y + x).flatten(), axis=0)
    given = _transform(transforms.pixels, tiles.reshape([points, -1]))
    given = given.reshape([points, -1, inputs])
    products = given.matmul(convolution.transformed, transpose_y=True)
    result = _transform(transforms.result, products.reshape([points, -1]))
    result = result.reshape([tile, tile, rows, columns, -1, outputs])
    picture = result.transpose([2, 0, 3, 1, 4, 5])  # (rows, tile, columns, tile, B, O)
    picture = picture.reshape([rows * tile, columns * tile, -1, outputs])[:height, :width]
    return picture if convolution.bias is None else picture + convolution.bias


def _transform(matrix: FloatArray, values: Tensor) -> Tensor:
    """Transform both axes of all tiles at once: (points, N)."""
    both = np.kron(matrix, matrix).astype(np.float32)
    product: Tensor = paddle.assign(both).matmul(values)
    return product
