"""Sizes of a tensor, with those that a trace leaves open."""

from typing import Any

import paddle
from paddle import Tensor


# Paddle's own conversion of ``shape`` would hide which sizes are open.
@paddle.jit.not_to_static  # type: ignore[untyped-decorator]
def read_sizes(tensor: Tensor) -> list[Any]:
    """Read the sizes of a tensor: numbers, and int64 scalars for the free dimensions of a trace."""
    sizes = list(tensor.shape)
    if -1 not in sizes:
        return sizes
    computed = paddle.shape(tensor)
    return [computed[axis] if size == -1 else size for axis, size in enumerate(sizes)]


def are_known(*sizes: Any) -> bool:
    """Tell whether sizes are numbers, and so may decide what is traced."""
    return all(isinstance(size, int) for size in sizes)
