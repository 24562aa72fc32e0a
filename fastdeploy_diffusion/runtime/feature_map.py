"""Feature maps too large for memory, in scratch files that are written and read by tiles."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


class Window(NamedTuple):
    """A window of a map along one axis, and the part of it that its results are kept of.

    Args:
        start: First row or column that it sees.
        stop: After the last one.
        first: First row or column that is kept.
        last: After the last one.
    """

    start: int
    stop: int
    first: int
    last: int


def list_windows(size: int, window: int, halo: int) -> Iterator[Window]:
    """List windows of equal size whose kept parts cover an axis, each row and column once.

    At the ends of the map nothing is missing beside a window, and its results are kept up to there.

    Args:
        window: Rows or columns that it sees, at most ``size``; more than twice the ``halo`` unless
            it is the whole.
        halo: Rows or columns at its sides whose results depend on what is outside.
    """
    done = 0
    while done < size:
        start = max(min(done - halo, size - window), 0)
        last = size if start + window == size else start + window - halo
        yield Window(start, start + window, done, last)
        done = last


class FeatureMap:
    """A map (C, H, W) of float32 in a file without a name, which goes with it.

    Pixels lie in the file with all their channels: a row of a window is one read, and the whole is
    a list of tokens.
    """

    def __init__(self, channels: int, height: int, width: int, folder: Path) -> None:
        self.channels, self.height, self.width = channels, height, width
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115

    def read(self, rows: tuple[int, int], columns: tuple[int, int]) -> FloatArray:
        """Read a window, (1, C, rows, columns)."""
        height, width = rows[1] - rows[0], columns[1] - columns[0]
        pixels = np.empty((height, width, self.channels), np.float32)
        for index in range(height):
            self._read_into(pixels[index], rows[0] + index, columns[0])
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]

    def read_tokens(self) -> FloatArray:
        """Read the whole map as tokens, (1, H·W, C)."""
        tokens = np.empty((self.height, self.width, self.channels), np.float32)
        for index in range(self.height):
            self._read_into(tokens[index], index, 0)
        return tokens.reshape(1, -1, self.channels)

    def write(self, values: FloatArray, row: int, column: int) -> None:
        """Write a window (C, rows, columns), whose first pixel is at ``row`` and ``column``.

        Raises:
            OSError: The disk is full.
        """
        pixels = np.ascontiguousarray(values.transpose(1, 2, 0))
        for index, line in enumerate(pixels):
            offset = self._find(row + index, column)
            if os.pwrite(self._file.fileno(), line.data.cast("B"), offset) != line.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Give back the room on the disk."""
        self._file.close()

    def _read_into(self, line: FloatArray, row: int, column: int) -> None:
        os.preadv(self._file.fileno(), [line.data.cast("B")], self._find(row, column))

    def _find(self, row: int, column: int) -> int:
        return (row * self.width + column) * self.channels * np.dtype(np.float32).itemsize


class Moments:
    """Mean and variance of each group of channels of a map, gathered tile by tile in float64."""

    def __init__(self, groups: int) -> None:
        self._sums = np.zeros(groups)
        self._squares = np.zeros(groups)
        self._count = 0

    def add(self, values: FloatArray) -> None:
        """Add pixels that were not there yet, (C, rows, columns)."""
        groups = values.reshape(len(self._sums), -1).astype(np.float64)
        self._sums += groups.sum(axis=1)
        self._squares += np.einsum("gi,gi->g", groups, groups)
        self._count += groups.shape[1]

    @property
    def mean(self) -> FloatArray:
        """Of each group, (1, groups)."""
        return (self._sums / self._count).astype(np.float32)[None]

    @property
    def variance(self) -> FloatArray:
        """Of each group, without Bessel's correction, (1, groups)."""
        variance = self._squares / self._count - np.square(self._sums / self._count)
        return np.maximum(variance, 0).astype(np.float32)[None]
