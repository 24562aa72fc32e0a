"""The matrices of Winograd's algorithm for 3×3 convolutions, by the size of their tiles."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Transforms:
    """The transforms of one axis of a tile, of its kernel and of its products; both axes are alike.

    Args:
        pixels: (m + 2, m + 2) float64, the paper's B transposed.
        kernel: (m + 2, 3) float64, its G.
        result: (m, m + 2) float64, its A transposed.
    """

    pixels: FloatArray
    kernel: FloatArray
    result: FloatArray

    def find_pixels(self, size: int, repeat: int) -> npt.NDArray[np.int64]:
        """Index the pixels of all tiles along an axis.

        Args:
            repeat: How often each pixel is repeated.

        Returns:
            (m + 2, tiles) indices into the axis with a border of one at both ends.
        """
        tile, points = self.result.shape
        tiles = -(-size // tile)
        place = np.add.outer(np.arange(points), tile * np.arange(tiles)) - 1
        # Pixels beyond the result are read from the border: any value will do.
        return np.where(place < size, place // repeat + 1, -(-size // repeat) + 1)


TRANSFORMS: Mapping[int, Transforms] = MappingProxyType(
    {
        2: Transforms(
            pixels=np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1.0]]),
            kernel=np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
            result=np.array([[1, 1, 1, 0], [0, 1, -1, -1.0]]),
        ),
        4: Transforms(
            pixels=np.array(
                [
                    [4, 0, -5, 0, 1, 0],
                    [0, -4, -4, 1, 1, 0],
                    [0, 4, -4, -1, 1, 0],
                    [0, -2, -1, 2, 1, 0],
                    [0, 2, -1, -2, 1, 0],
                    [0, 4, 0, -5, 0, 1.0],
                ]
            ),
            kernel=np.array(
                [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
            )
            / 24,
            result=np.array(
                [
                    [1, 1, 1, 1, 1, 0],
                    [0, 1, -1, 2, -2, 0],
                    [0, 1, 1, 4, 4, 0],
                    [0, 1, -1, 8, -8, 1.0],
                ]
            ),
        ),
    }
)
"""By m, the height and width of what one tile gives."""
