"""Renaming of stored tensors to canonical names, driven by tables of patterns."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource, TensorView
from fastdeploy_diffusion.errors import CheckpointError


@dataclass(frozen=True)
class KeyRule:
    r"""What becomes of the stored tensors whose whole name matches a pattern.

    Attributes:
        pattern: Regular expression over the stored name (after the component's prefix).
        names: Canonical names as templates (``\1`` is the first group). Several names: the
            tensor holds that many equal slices along axis 0. None: the tensor is known and inert.
        slices: For each name, the slices that make it, in their order, where that is not one each.
        transposed: Stored as [in, out].
        squeezed: Stored as a 1×1 convolution kernel in some published files.
    """

    pattern: re.Pattern[str]
    names: tuple[str, ...] = ()
    transposed: bool = False
    squeezed: bool = False
    slices: tuple[tuple[int, ...], ...] = ()

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
    return KeyRule(re.compile(pattern), names, transposed, squeezed, slices)


def rename_layers(table: Mapping[str, str], *, squeezed: bool = False) -> tuple[KeyRule, ...]:
    """Make one rule a layer, for its weight and its bias, from old pattern → new template."""
    return tuple(
        rename(rf"{old}\.(?P<kind>weight|bias)", rf"{new}.\g<kind>", squeezed=squeezed)
        for old, new in table.items()
    )


def ignore(pattern: str) -> KeyRule:
    """Make a rule for tensors that published files carry and that the model does not use."""
    return KeyRule(re.compile(pattern))


def collect_tensors(
    origin: Path, files: Iterable[SafetensorsFile], rules: Sequence[KeyRule], prefix: str = ""
) -> TensorSource:
    """Give the tensors of one component their canonical names.

    Args:
        origin: The component's folder or file, for messages.
        files: The files that hold it.
        rules: The first rule that matches decides. A name that no rule matches stays as it is, so
            that loading either finds it in the model or reports it.
        prefix: Only tensors whose name begins with it belong to the component.

    Raises:
        CheckpointError: Two stored tensors would get one name, or a fused tensor does not divide.
    """
    views: dict[str, TensorView] = {}
    for file in files:
        for stored_name in file.tensors:
            if not stored_name.startswith(prefix):
                continue
            for name, view in _apply(rules, file, stored_name, stored_name[len(prefix) :]):
                if name in views:
                    other = views[name]
                    raise CheckpointError(
                        f"{origin} gives {name!r} twice: as {other.stored_name!r} in "
                        f"{other.file.path.name} and as {stored_name!r} in {file.path.name}",
                        fix="remove one of the two; there is no telling which one is meant",
                    )
                views[name] = view
    return TensorSource(str(origin), views)


def _apply(
    rules: Sequence[KeyRule], file: SafetensorsFile, stored_name: str, name: str
) -> list[tuple[str, TensorView]]:
    for rule in rules:
        match = rule.pattern.fullmatch(name)
        if match is None:
            continue
        parts = sum(len(share) for share in rule.shares)
        rows = (*file.tensors[stored_name].shape, 1)[0]
        if parts > 1 and rows % parts:
            raise CheckpointError(
                f"{file.path}: {stored_name!r} has {rows} rows",
                allowed=f"a multiple of {parts}: it holds {parts} tensors in one",
            )
        return [
            (
                match.expand(template),
                TensorView(file, stored_name, share, parts, rule.transposed, rule.squeezed),
            )
            for share, template in zip(rule.shares, rule.names, strict=True)
        ]
    return [(name, TensorView(file, stored_name))]
