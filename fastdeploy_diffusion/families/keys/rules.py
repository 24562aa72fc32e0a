"""Renaming of stored tensors to canonical names, driven by tables of patterns."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class KeyRule:
    r"""A renaming of the stored tensors whose whole name matches a pattern.

    Attributes:
        pattern: Regular expression over the stored name (after the component's prefix).
        names: Canonical names as templates (``\1`` is the first group). Several names: the
            tensor holds that many equal slices along axis 0. None: the tensor is known and inert.
        slices: For each name, the slices that make it, in their order, where that is not one each.
        transposed: Stored as [in, out].
        squeezed: Stored as a 1×1 convolution kernel in some published files.
    """

    pattern: str
    names: tuple[str, ...] = ()
    transposed: bool = False
    squeezed: bool = False
    slices: tuple[tuple[int, ...], ...] = ()

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern)  # when it is asked for: most starts read no such names

    def match(self, name: str) -> re.Match[str] | None:
        """Match a whole name."""
        return self._compiled.fullmatch(name)

    @property
    def shares(self) -> tuple[tuple[int, ...], ...]:
        """The slices of each name."""
        return self.slices or tuple((index,) for index in range(len(self.names)))


def rename(
    pattern: str,
    *names: str,
    transposed: bool = False,
    squeezed: bool = False,
    slices: tuple[tuple[int, ...], ...] = (),
) -> KeyRule:
    """Make a rule that gives the tensors of a pattern their canonical names."""
    return KeyRule(pattern, names, transposed, squeezed, slices)


def rename_layers(table: Mapping[str, str], *, squeezed: bool = False) -> tuple[KeyRule, ...]:
    """Make one rule a layer, for its weight and its bias, from old pattern → new template."""
    return tuple(
        rename(rf"{old}\.(?P<kind>weight|bias)", rf"{new}.\g<kind>", squeezed=squeezed)
        for old, new in table.items()
    )


def ignore(pattern: str) -> KeyRule:
    """Make a rule for tensors that published files carry and that the model does not use."""
    return KeyRule(pattern)
