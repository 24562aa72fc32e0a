"""A dimension that one build leaves open, within bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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

    def describe(self) -> list[Any]:
        """Describe it as JSON values."""
        return [self.name, self.min, self.opt, self.max]


@dataclass(frozen=True)
class ScaledRange(SizeRange):
    """A size that follows from another one.

    Args:
        base: The other.
        times: How often it has that.
        by: What that is divided by, and rounded up.
    """

    base: SizeRange
    times: int = 1
    by: int = 1

    def describe(self) -> list[Any]:
        """Describe it as JSON values, with what it follows from."""
        return [*super().describe(), self.base.describe(), self.times, self.by]

    def scale(self, size: int) -> int:
        """Compute it from a number of the other."""
        return -(-size * self.times // self.by)


def parse_range(description: list[Any]) -> SizeRange:
    """Parse the JSON values of ``describe``."""
    name, smallest, usual, largest, *follows = description
    if not follows:
        return SizeRange(name, smallest, usual, largest)
    base, times, by = follows
    return ScaledRange(name, smallest, usual, largest, parse_range(base), times, by)


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
        wanted: Numbers by name; a range is clipped to the nearest, by default its ``opt``. A scaled
            one goes by the number of what it follows from.
    """
    if isinstance(size, ScaledRange):
        return size.scale(choose_size(size.base, wanted))
    if isinstance(size, SizeRange):
        return min(max(wanted.get(size.name, size.opt), size.min), size.max)
    return wanted["batch"] if size is None else size


def multiply(size: Size, factor: int) -> Size:
    """Scale a size by a whole number."""
    return _scale(size, times=factor)


def divide(size: Size, divisor: int) -> Size:
    """Divide a size by a whole number, rounded up."""
    return _scale(size, by=divisor)


def _scale(size: Size, times: int = 1, by: int = 1) -> Size:
    if size is None or times == by:
        return size
    if isinstance(size, int):
        return -(-size * times // by)
    name = f"{size.name}_x{times}" if by == 1 else f"{size.name}_d{by}"
    smallest, usual, largest = (-(-each * times // by) for each in (size.min, size.opt, size.max))
    return ScaledRange(name, smallest, usual, largest, size, times, by)
