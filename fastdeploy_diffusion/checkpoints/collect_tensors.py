"""The tensors of one component, under their canonical names."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource, TensorView
from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.families.keys.rules import KeyRule


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
