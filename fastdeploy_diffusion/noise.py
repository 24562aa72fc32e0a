"""The noise of a seed: torch's CPU stream of normal numbers, reproduced in numpy.

A seed gives the picture of other tools only if the first latents are the same.
Reference: ``ATen/native/cpu/DistributionTemplates.h`` and ``ATen/core/DistributionsHelper.h`` of
PyTorch.
"""

import math
import operator
import secrets
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.shown import show

_BLOCK = 16  # torch transforms uniforms to normals in blocks of 16; fewer values take another path


class TorchGenerator:
    """``torch.Generator().manual_seed(seed)`` on the CPU, without torch.

    Args:
        seed: -2**63 … 2**64-1. As in torch, a negative seed counts from 2**64 and only the low
            32 bits choose the stream.

    Raises:
        RequestError: the seed is not an integer or lies outside that range.
    """

    def __init__(self, seed: int) -> None:
        low_bits = check_seed(seed) & 0xFFFFFFFF
        # RandomState seeds as torch does (init_genrand of Matsumoto and Nishimura, 2002); MT19937
        # on its own would spread the seed through a SeedSequence.
        self._words = np.random.MT19937()
        self._words.state = cast(Any, np.random.RandomState(low_bits).get_state(legacy=False))
        self._cached_normal: float | None = None

    def randn(self, shape: Sequence[int]) -> npt.NDArray[np.float32]:
        """Draw the same as ``torch.randn(shape, generator=generator)`` would next.

        Args:
            shape: Sizes of the array; ``()`` is one number.

        Returns:
            Standard normal numbers of that shape, float32, equal to torch's up to rounding (1e-5).

        Raises:
            RequestError: a size is negative.
        """
        if any(size < 0 for size in shape):
            raise RequestError(
                f"noise of shape {tuple(shape)} cannot be drawn", allowed="sizes of 0 or more"
            )
        count = math.prod(shape)
        if count < _BLOCK:
            return np.array([self._draw_one() for _ in range(count)], np.float32).reshape(shape)
        return self._draw_many(count).reshape(shape)

    def _draw_one(self) -> float:
        """Draw a number in double precision; Box–Muller makes two, the second is kept for later."""
        if self._cached_normal is not None:
            normal, self._cached_normal = self._cached_normal, None
            return normal
        high_1, low_1, high_2, low_2 = (int(word) for word in self._words.random_raw(4))
        angle = 2.0 * math.pi * _uniform_53(high_1, low_1)
        radius = math.sqrt(-2.0 * math.log1p(-_uniform_53(high_2, low_2)))
        self._cached_normal = radius * math.sin(angle)
        return radius * math.cos(angle)

    def _draw_many(self, count: int) -> npt.NDArray[np.float32]:
        """Draw 16 or more numbers in single precision; one kept by ``_draw_one`` stays kept."""
        uniforms = self._draw_uniforms(count)
        whole = count - count % _BLOCK
        normals = np.empty(count, np.float32)
        normals[:whole] = _transform_blocks(uniforms[:whole])
        if whole < count:
            # torch draws afresh for the last 16 values, some of which it has already transformed.
            normals[-_BLOCK:] = _transform_blocks(self._draw_uniforms(_BLOCK))
        return normals

    def _draw_uniforms(self, count: int) -> npt.NDArray[np.float32]:
        words = self._words.random_raw(count) & np.uint64(0xFFFFFF)
        uniforms: npt.NDArray[np.float32] = words.astype(np.float32) * np.float32(2.0**-24)
        return uniforms


def new_seed() -> int:
    """Draw a random seed, 0 … 2**32-1, for a request without one."""
    return secrets.randbits(32)


def count_seeds(seed: int, first: int, pictures: int) -> tuple[int, ...]:
    """Count seeds for pictures numbered from ``first``, given that of number 0.

    The largest seed is followed by the smallest, as in 64-bit arithmetic.
    """
    return tuple(
        (seed + index) % 2**64 if index else seed for index in range(first, first + pictures)
    )


def check_seed(seed: Any) -> int:
    """Convert a seed to Python's own integer.

    Raises:
        RequestError: It is not an integer from -2**63 to 2**64-1.
    """
    allowed = "an integer from -2**63 to 2**64-1"
    try:
        if isinstance(seed, bool | np.bool_):  # an int to Python, a mistake to everybody else
            raise TypeError
        value = operator.index(seed)
    except TypeError:
        raise RequestError(f"the seed {show(seed)} is not an integer", allowed=allowed) from None
    if not -(2**63) <= value < 2**64:
        raise RequestError(f"the seed {show(value)} is out of range", allowed=allowed)
    return value


def _uniform_53(high: int, low: int) -> float:
    """Map the low 53 of 64 bits to [0, 1)."""
    return ((high << 32 | low) & (2**53 - 1)) * 2.0**-53


def _transform_blocks(uniforms: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Apply Box–Muller to blocks of 16: the first eight give radii, the last eight angles."""
    blocks = uniforms.reshape(-1, 2, _BLOCK // 2)
    radius = np.sqrt(np.float32(-2.0) * np.log(np.float32(1.0) - blocks[:, 0]))
    angle = np.float32(2.0 * math.pi) * blocks[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
