"""Sizes of a tensor, those that a trace leaves open included."""

from typing import Any

import paddle
from paddle import Tensor


# Paddle's own conversion of ``shape`` would hide which sizes are open.
@paddle.jit.not_to_static  # type: ignore[untyped-decorator]
def read_sizes(tensor: Tensor) -> list[Any]:
    """Give the sizes of a tensor: numbers, and scalars (int64) that the graph computes.

    Args:
        tensor: Any; in a trace, its free dimensions are the ones that the graph computes.
    """
    sizes = list(tensor.shape)
    if -1 not in sizes:
        return sizes
    computed = paddle.shape(tensor)
    return [computed[axis] if size == -1 else size for axis, size in enumerate(sizes)]


def are_known(*sizes: Any) -> bool:
    """Tell whether sizes are numbers, and so may decide what is traced."""
    return all(isinstance(size, int) for size in sizes)
