"""A dimension that one build leaves open, within bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class SizeRange:
    """The sizes that a dimension may have.

    Args:
        name: Dimensions of one name are equal in all tensors of a program.
        opt: The one that an engine tunes for.
    """

    name: str
    min: int
    opt: int
    max: int

    def __str__(self) -> str:
        return f"{self.min} to {self.max}"


Size = int | SizeRange | None
"""A number; a range; or ``None`` for any size from 1."""


def is_batch(size: Size) -> bool:
    """Tell whether a size is free and counts the batch, as one without bounds does."""
    return size is None or (isinstance(size, SizeRange) and size.name == "batch")


def fits(given: int, size: Size) -> bool:
    """Tell whether a number is allowed by a size."""
    if isinstance(size, SizeRange):
        return size.min <= given <= size.max
    return given >= 1 if size is None else given == size


def choose_size(size: Size, wanted: Mapping[str, int]) -> int:
    """Choose a number that a size allows.

    Args:
        size: A free one without bounds counts the batch.
        wanted: Numbers by name; a range is clipped to the nearest, by default its ``opt``.
    """
    if isinstance(size, SizeRange):
        return min(max(wanted.get(size.name, size.opt), size.min), size.max)
    return wanted["batch"] if size is None else size


def multiply(size: Size, factor: int) -> Size:
    """Scale a size by a whole number."""
    if isinstance(size, SizeRange):
        name = f"{size.name}_x{factor}"
        return SizeRange(name, size.min * factor, size.opt * factor, size.max * factor)
    return None if size is None else size * factor
