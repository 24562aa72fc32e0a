"""Facts for constant folding: values and sizes that are known before a graph runs."""

from typing import Any


def read_scalar(value: Any) -> float | None:
    """Read a constant of one element; ``None`` if the value is not one, or not known."""
    tensor = value.const_value
    return float(tensor.numpy().item()) if tensor is not None and tensor.size == 1 else None


def read_list(value: Any) -> list[float] | None:
    """Read a constant of one dimension; ``None`` if its numbers are not known."""
    tensor = value.const_value
    if tensor is None or len(tensor.shape) != 1:
        return None
    numbers: list[float] = tensor.numpy().tolist()
    return numbers


def read_size(value: Any, axis: int) -> int | None:
    """Read the size of a dimension; ``None`` if it is free, or the shape is not known."""
    size = value.shape[axis] if value.shape is not None else None
    return size if isinstance(size, int) else None


def name_consumers(value: Any) -> set[str]:
    """Name the operators that take a value."""
    return {each.op_type for each in value.consumers()}
