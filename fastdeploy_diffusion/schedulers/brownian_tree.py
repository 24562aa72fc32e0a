"""Brownian motion that can be asked for any two times, as torchsde's ``BrownianInterval``.

A seed fixes the whole path; halving intervals over and over finds it between two times. Reference:
``torchsde/_brownian/brownian_interval.py`` with ``halfway_tree``, ``tol=1e-6``, ``pool_size=24``.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.noise import TorchGenerator

_DIGITS = 6  # of times
_POOL_SIZE = 24
Noise: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Interval:
    """A part of the path; times are rounded.

    Args:
        change: Of the path from ``start`` to ``end``.
        key: Its number among those of its depth: its place in the tree, from which its seed is.
    """

    start: float
    end: float
    change: Noise
    key: int = 0
    depth: int = 0


class BrownianTree:
    """A path of Brownian motion over an interval of time.

    Args:
        start: First time.
        end: Last time, later.
        shape: Of the values.
        seed: 0 … 2**64-1.
    """

    def __init__(self, start: float, end: float, shape: Sequence[int], seed: int) -> None:
        self._seed, self._shape = seed, shape
        first = np.random.SeedSequence(seed, pool_size=_POOL_SIZE).generate_state(3)[0]
        change = self._draw(first) * np.float32(math.sqrt(end - start))
        self._root = _Interval(round(start, _DIGITS), round(end, _DIGITS), change)

    def change(self, start: float, end: float) -> Noise:
        """Return how far the path moves from a time to a later one, by the tree's shape, float32.

        Times are rounded to 1e-6, and cut to the path's own.
        """
        first = max(round(start, _DIGITS), self._root.start)
        last = min(round(end, _DIGITS), self._root.end)
        total = np.zeros(self._shape, np.float32)
        if first < last:
            for part in self._find(self._root, first, last):
                total = total + part
        return total

    def _find(self, interval: _Interval, start: float, end: float) -> Iterator[Noise]:
        """Iterate over the changes in an interval's parts between two times within it, in order."""
        if (start, end) == (interval.start, interval.end):
            yield interval.change
            return
        # Drawn anew for each step: hundreds of parts of large latents would fill gigabytes.
        left, right = self._halve(interval)
        if start < left.end:
            yield from self._find(left, start, min(end, left.end))
        if end > left.end:
            yield from self._find(right, max(start, left.end), end)

    def _halve(self, interval: _Interval) -> tuple[_Interval, _Interval]:
        """Draw the path's middle, given its ends: a Brownian bridge."""
        start, end = interval.start, interval.end
        middle = round(0.5 * (start + end), _DIGITS)
        own = (interval.key, interval.depth)
        sequence = np.random.SeedSequence(self._seed, spawn_key=own, pool_size=_POOL_SIZE)
        inverse = 1 / (end - start)
        deviation = math.sqrt((middle - start) * (end - middle) * inverse)
        mean = np.float32(middle - start) * interval.change * np.float32(inverse)
        left = mean + np.float32(deviation) * self._draw(sequence.generate_state(4)[0])
        key, depth = 2 * interval.key, interval.depth + 1
        return (
            _Interval(start, middle, left, key, depth),
            _Interval(middle, end, interval.change - left, key + 1, depth),
        )

    def _draw(self, seed: np.uint32) -> Noise:
        return TorchGenerator(int(seed)).randn(self._shape)
