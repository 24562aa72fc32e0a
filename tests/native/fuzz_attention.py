"""Calls the attention kernel with random shapes, each array at the edge of what may be touched.

``fuzz_attention.py LIBRARY ISA SEED COUNT`` ends with 0 if every result was right. Beside each
array lies a page that cannot be read or written, so that one step too far ends the process.
"""

import ctypes
import mmap
import sys
from pathlib import Path

import numpy as np
from attention_calls import BF16, F32, OK, Call, multiplies_bf16, open_library, round_to_bf16

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_TOKENS = (1, 2, 7, 16, 23, 24, 25, 31, 32, 33, 48, 64, 77, 96, 127, 130)
_KEYS = (*_TOKENS, 255, 256, 257, 288, 300, 511, 513, 800)
_SIZES = (1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 40, 64, 65, 80, 96, 127, 128, 160, 255, 512)
_LARGEST = 3_000_000  # products in a call, so that it takes milliseconds


class Arena:
    """Arrays between pages that cannot be touched."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._maps: list[mmap.mmap] = []

    def place(self, values: np.ndarray, order: tuple[int, ...], gap: int = 0) -> np.ndarray:
        """Copy values so that the first or the last one lies at the edge of a guarded page.

        Args:
            order: The axes from the slowest to the fastest in memory.
            gap: Elements between the rows of the last axis.
        """
        stored = [values.shape[axis] for axis in order]
        row = stored[-1] + gap
        count = int(np.prod(stored[:-1])) * row - gap
        page, size = mmap.PAGESIZE, max(count, 1) * values.itemsize
        inner = -(-size // page) * page
        area = mmap.mmap(-1, inner + 2 * page)
        self._maps.append(area)
        start = ctypes.addressof(ctypes.c_char.from_buffer(area))
        for guard in (start, start + page + inner):
            if _LIBC.mprotect(guard, page, 0):
                raise OSError(ctypes.get_errno(), "mprotect")
        offset = page + (inner - size if self._rng.random() < 0.75 else 0)
        whole = np.frombuffer(area, values.dtype, max(count, 1), offset)
        strides = [row * values.itemsize] * len(stored)
        strides[-1] = values.itemsize
        for axis in range(len(stored) - 3, -1, -1):
            strides[axis] = strides[axis + 1] * stored[axis + 1]
        array = np.lib.stride_tricks.as_strided(whole, stored, strides)
        array = array.transpose(np.argsort(order))
        array[...] = values
        return array


def draw_call(rng: np.random.Generator, isa: int, arena: Arena) -> Call:
    """Draw a call that the instruction set can take."""
    while True:
        batch, heads = (int(n) for n in rng.integers(1, 4, 2))
        queries, keys = (
            int(rng.choice(sizes) if rng.random() < 0.7 else rng.integers(1, 400))
            for sizes in (_TOKENS, _KEYS)
        )
        size, value_size = (
            int(rng.choice(_SIZES) if rng.random() < 0.8 else rng.integers(1, 513))
            for _ in range(2)
        )
        if rng.random() < 0.7:
            value_size = size
        if batch * heads * queries * keys * (size + value_size) < _LARGEST:
            break
    type_in, type_out = (np.uint16 if rng.random() < 0.5 else np.float32 for _ in range(2))

    def draw(tokens: int, size: int, dtype: type) -> np.ndarray:
        values = rng.standard_normal((batch, heads, tokens, size), np.float32)
        order = ((0, 1, 2, 3), (0, 2, 1, 3), (2, 0, 1, 3))[rng.integers(3)]
        gap = int(rng.choice((0, 0, 1, 5, 64)))
        return arena.place(round_to_bf16(values) if dtype is np.uint16 else values, order, gap)

    bias = None
    if rng.random() < 0.4:
        axes = [n if rng.random() < 0.6 else 1 for n in (batch, heads, queries, keys)]
        values = rng.standard_normal(axes, np.float32) * 2
        masked = rng.random(axes) < 0.3
        masked[..., 0] = False
        values[masked] = (-np.inf, np.finfo(np.float32).min, -1e4)[rng.integers(3)]
        order = (0, 1, 2, 3) if rng.random() < 0.8 else (0, 1, 3, 2)
        bias = np.broadcast_to(arena.place(values, order), (batch, heads, queries, keys))
    return Call(
        draw(queries, size, type_in),
        draw(keys, size, type_in),
        draw(keys, value_size, type_in),
        draw(queries, value_size, type_out),
        scale=float(size**-0.5 * rng.choice((1, 1, 1, 0.25, -1, 0))),
        bias=bias,
        products=BF16 if multiplies_bf16(isa) or rng.random() < 0.3 else F32,
    )


def fuzz(path: Path, isa: int, seed: int, count: int) -> float:
    """Run calls; returns the largest error as a share of what is allowed.

    Raises:
        AssertionError: One is refused or wrong.
    """
    library, worst = open_library(path), 0.0
    for index in range(seed, seed + count):
        rng = np.random.default_rng(index)
        call = draw_call(rng, isa, Arena(rng))
        status, error = call.run(library, isa), call.check(isa)
        if status != OK or not error <= 1:
            raise AssertionError(
                f"seed {index}: status {status}, error {error:.3g} of what is allowed; "
                f"q {call.q.shape} {call.q.dtype}, k {call.k.shape}, v {call.v.shape}, "
                f"out {call.out.dtype}, scale {call.scale}, bias {call.bias is not None}"
            )
        worst = max(worst, error)
    return worst


if __name__ == "__main__":
    share = fuzz(Path(sys.argv[1]), *(int(each) for each in sys.argv[2:5]))
    print(f"largest error: {share:.2f} of what is allowed")
