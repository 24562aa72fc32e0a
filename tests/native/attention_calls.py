"""The attention kernel over its C interface, and what NumPy computes in float64 in its place."""

import ctypes
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ISAS = {1: "portable", 2: "AVX2", 4: "AVX-512", 8: "AVX-512-BF16", 16: "AMX-BF16"}
F32, BF16 = 0, 1
OK, BAD_SHAPE, BAD_ISA = 0, 1, 2


class Shape(ctypes.Structure):
    """fdd_attention_shape."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "heads", "queries", "keys")),
        *((name, ctypes.c_int64) for name in ("head_size", "value_size")),
        *((name, ctypes.c_int64 * 3) for name in "qkvo"),
        ("bias", ctypes.c_void_p),
        ("bias_stride", ctypes.c_int64 * 4),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("in_type", "out_type", "products")),
    )


def open_library(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    pointer = ctypes.c_void_p
    library.fdd_attention.argtypes = [
        *(ctypes.POINTER(Shape), pointer, pointer, pointer, pointer),
        *(pointer, pointer, ctypes.c_int),
    ]
    return library


def multiplies_bf16(isa: int) -> bool:
    return isa >= 8


def round_to_bf16(values: np.ndarray) -> np.ndarray:
    """Round float32 to the nearest bf16, as its 16 bits."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def widen(values: np.ndarray) -> np.ndarray:
    """Read bf16 as float32, and float32 as it is."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


@dataclass
class Call:
    """A call with arrays of (batch, heads, tokens, size), float32, or bf16 as uint16.

    Args:
        bias: (batch, heads, queries, keys), float32; strides may be 0.
    """

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    out: np.ndarray
    scale: float
    bias: np.ndarray | None = None
    products: int = F32
    shape: Shape = field(init=False)

    def __post_init__(self) -> None:
        batch, heads, queries, size = self.q.shape
        self.shape = Shape(batch, heads, queries, self.k.shape[2], size, self.v.shape[3])
        for name, array in (("q", self.q), ("k", self.k), ("v", self.v), ("o", self.out)):
            assert array.shape[3] == 1 or array.strides[3] == array.itemsize
            setattr(self.shape, name, (ctypes.c_int64 * 3)(*_strides(array)[:3]))
        if self.bias is not None:
            self.shape.bias = self.bias.ctypes.data
            self.shape.bias_stride = (ctypes.c_int64 * 4)(*_strides(self.bias))
        self.shape.scale = self.scale
        self.shape.in_type = BF16 if self.q.dtype == np.uint16 else F32
        self.shape.out_type = BF16 if self.out.dtype == np.uint16 else F32
        self.shape.products = self.products

    def run(self, library: ctypes.CDLL, isa: int = 0, parallel: object = None) -> int:
        """Call the kernel; returns its status."""
        arrays = (self.q, self.k, self.v, self.out)
        pointers = [array.ctypes.data for array in arrays]
        return library.fdd_attention(ctypes.byref(self.shape), *pointers, parallel, None, isa)

    def expect(self, isa: int) -> tuple[np.ndarray, np.ndarray]:
        """Compute the exact result in float64, and how far from it a right kernel may be.

        The error of a row is bounded by that of its weights, of which each is rounded, times the
        sizes of its values.
        """
        q, k, v = (
            widen(round_to_bf16(each) if multiplies_bf16(isa) else each)
            if each.dtype == np.float32
            else widen(each)
            for each in (self.q, self.k, self.v)
        )
        q, k, v = (each.astype(np.float64) for each in (q, k, v))
        scores = q @ np.swapaxes(k, 2, 3) * np.float64(np.float32(self.scale))
        if self.bias is not None:
            scores = scores + self.bias
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        exact, sizes = weights @ v, weights @ np.abs(v)
        allowed = sizes * (4.1e-3 if multiplies_bf16(isa) else 1e-5)
        if self.shape.out_type == BF16:
            allowed = allowed + np.abs(exact) * 2**-8
        return exact, allowed + 1e-30

    def check(self, isa: int) -> float:
        """Compare what was written; returns the largest error as a share of what is allowed."""
        exact, allowed = self.expect(isa)
        return float((np.abs(widen(self.out) - exact) / allowed).max(initial=0.0))


def _strides(array: np.ndarray) -> list[int]:
    return [stride // array.itemsize for stride in array.strides]
