"""One file of changes to a model, opened: LoRA, LoCon, LoHa, LoKr, DoRA, full differences."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastdeploy_diffusion.adapters.changes import LayerChange, flatten_shape
from fastdeploy_diffusion.adapters.file_metadata import AdapterMetadata, read_metadata
from fastdeploy_diffusion.adapters.kinds import BIASES, find_kind, fits_outputs
from fastdeploy_diffusion.adapters.spellings import Site, find_site, list_spellings
from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource
from fastdeploy_diffusion.checkpoints.weight_file import WeightFile
from fastdeploy_diffusion.checkpoints.weight_files import WEIGHT_SUFFIXES, open_weight_file
from fastdeploy_diffusion.errors import AdapterError
from fastdeploy_diffusion.families.family import Family

_ALLOWED = f"a file of a LoRA ({', '.join(WEIGHT_SUFFIXES)}), or a folder that holds one"
# What diffusers and PEFT call their files in a folder.
_IN_FOLDERS = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
_LISTED = 20
_BLOCK = 1 << 22
# What the names of other families' files have in them.
_MARKS: Mapping[str, str] = {
    "Stable Diffusion 3": r"joint_blocks",
    "Flux": r"double_blocks|single_blocks|single_transformer_blocks",
    "SDXL": r"lora_te2_|text_encoder_2\.|transformer_blocks[._][2-9]",
}
_INTEGERS = {"I64": "<i8", "I32": "<i4"}


class AdapterWarning(UserWarning):
    """Tensors of an adapter's file are left out, as ``strict=False`` asks for."""


@dataclass(frozen=True)
class Adapter:
    """The changes of one file.

    Attributes:
        digest: Of the file; sha256 as hexadecimal digits.
        changes: Of single layers of the file.
        unused: Tensors that were left out.
    """

    path: Path
    digest: str
    changes: tuple[LayerChange, ...]
    metadata: AdapterMetadata
    unused: tuple[str, ...] = ()


def open_adapter(
    path: Path, family: Family, sources: Mapping[str, TensorSource], *, strict: bool = True
) -> Adapter:
    """Open the file of an adapter of a model; its numbers stay on disk until they are read.

    Args:
        path: The file, or a folder as diffusers and PEFT write it.
        sources: The weights that it may change, by component.
        strict: Whether tensors that have no use are an error, and not a warning.

    Raises:
        AdapterError: It is missing, of another family or size, or has tensors that have no use.
        CheckpointError: The file is damaged, or of another format.
    """
    path = _find_file(path)
    file = open_weight_file(path, _ALLOWED, "a LoRA")
    layers = {
        component: list(dict.fromkeys(name.rpartition(".")[0] for name in source))
        for component, source in sources.items()
    }
    spellings = list_spellings(family, layers)
    grouped: dict[str, dict[str, str]] = {}
    unused: list[str] = []
    for key in sorted(file.tensors):
        found = find_site(key, spellings)
        if found is None:
            unused.append(key)
        else:
            grouped.setdefault(found[0], {})[found[1]] = key
    if not grouped:
        raise _explain_stranger(file, family)
    metadata = read_metadata(file)
    reader = _Reader(file, sources, metadata, family)
    changes: list[LayerChange] = []
    for name, stored in grouped.items():
        change = reader.read(name, spellings[name], stored)
        unused += stored.values() if change is None else ()
        changes += [change] if change else []
    if unused:
        _report_unused(file, family, sorted(unused), strict=strict)
    _refuse_doubles(file, changes)
    return Adapter(path, _digest(path), tuple(changes), metadata, tuple(sorted(unused)))


def _find_file(path: Path) -> Path:
    path = path.expanduser()
    if path.is_dir():
        for name in _IN_FOLDERS:
            if (path / name).is_file():
                return path / name
        files = sorted(each.name for each in path.iterdir() if each.suffix in WEIGHT_SUFFIXES)
        raise AdapterError(
            f"{path} is a folder without {' or '.join(_IN_FOLDERS)}",
            allowed=_ALLOWED,
            fix=f"give a file of it: {path / files[0]}" if files else "give the file of a LoRA",
        )
    if not path.exists():
        raise AdapterError(f"{path} does not exist", allowed=_ALLOWED, fix="correct the path")
    return path


def _digest(path: Path) -> str:
    content = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            content.update(block)
    return content.hexdigest()


class _Reader:
    """Reads the changes of layers."""

    def __init__(
        self,
        file: WeightFile,
        sources: Mapping[str, TensorSource],
        metadata: AdapterMetadata,
        family: Family,
    ) -> None:
        self._file, self._sources = file, sources
        self._metadata, self._family = metadata, family

    def read(self, name: str, site: Site, stored: Mapping[str, str]) -> LayerChange | None:
        """Read a layer's change; ``None`` if its parts make none."""
        parts = {part: key for part, key in stored.items() if part not in BIASES}
        biases = [key for part, key in stored.items() if part in BIASES]
        kind = find_kind(frozenset(parts)) if parts else None
        if (parts and kind is None) or len(biases) > 1:
            return None
        if biases and not self._has(site, "bias"):
            return None
        if biases:
            self._check_shape(biases[0], self._file.tensors[biases[0]].shape, site, "bias")
        if kind is None:
            return LayerChange(name, site, self._file, None, {}, 1.0, None, biases[0])
        if not self._has(site, "weight"):
            return None
        shapes = {part: self._file.tensors[key].shape for part, key in parts.items()}
        try:
            shape = kind.measure(shapes)
        except (IndexError, ValueError):
            raise self._refuse_shapes(parts) from None
        weight = self._check_shape(name, shape, site, "weight")
        norms = self._find_norms(parts, weight)
        scale = kind.scale(shapes, *self._find_alpha(parts, site))
        read = {part: key for part, key in parts.items() if part not in ("alpha", *(norms or ()))}
        return LayerChange(
            name,
            site,
            self._file,
            kind,
            read,
            scale,
            None if norms is None else (parts[norms[0]], norms[1]),
            biases[0] if biases else None,
        )

    def _has(self, site: Site, tensor: str) -> bool:
        return all(f"{each.layer}.{tensor}" in self._sources[each.component] for each in site)

    def _check_shape(
        self, name: str, shape: tuple[int, ...], site: Site, tensor: str
    ) -> tuple[int, ...]:
        """Refuse a difference of another shape than the joined tensor, which is returned."""
        shapes = [self._sources[each.component].shape(f"{each.layer}.{tensor}") for each in site]
        joined = (sum(each[0] for each in shapes), *shapes[0][1:])
        if flatten_shape(shape) != flatten_shape(joined):
            said = self._metadata.base_model
            raise AdapterError(
                f"{self._file.path}: {name} is for a {tensor} of shape {tuple(shape)}, and that of "
                f"this model has {joined}" + (f"; the file says it is for {said}" if said else ""),
                allowed=f"adapters of this very kind of {self._family.title} model",
                fix="use it with the model that it was trained on",
            )
        return joined

    def _refuse_shapes(self, parts: Mapping[str, str]) -> AdapterError:
        shapes = ", ".join(f"{key} {self._file.tensors[key].shape}" for key in parts.values())
        return AdapterError(
            f"{self._file.path}: these shapes make no change of a weight: {shapes}",
            fix="download the file again",
        )

    def _find_norms(
        self, parts: Mapping[str, str], weight: tuple[int, ...]
    ) -> tuple[str, bool] | None:
        for part in ("dora_scale", "magnitude"):
            if part in parts:
                by_output = fits_outputs(part, self._file.tensors[parts[part]].shape, weight)
                if by_output is None:
                    raise self._refuse_shapes({part: parts[part]})
                return part, by_output
        return None

    def _find_alpha(self, parts: Mapping[str, str], site: Site) -> tuple[float | None, bool]:
        """Find alpha, in the file or what lies beside it, and whether it is rsLoRA's."""
        if "alpha" not in parts:
            return self._metadata.find_alpha(site[0].component, site[0].layer)
        tensor = self._file.tensors[parts["alpha"]]
        if tensor.dtype in _INTEGERS:
            kind = _INTEGERS[tensor.dtype]
            numbers = np.fromfile(self._file.path, kind, 1, offset=tensor.offset)
        else:
            numbers = self._file.read(parts["alpha"]).reshape(-1)
        if len(numbers) != 1 or not np.isfinite(numbers[0]):
            raise self._refuse_shapes({"alpha": parts["alpha"]})
        return float(numbers[0]), False


def _explain_stranger(file: WeightFile, family: Family) -> AdapterError:
    """Make the error for a file of which no tensor belongs to the model."""
    names = sorted(file.tensors)
    looks = next(
        (title for title, marks in _MARKS.items() if any(re.search(marks, each) for each in names)),
        "",
    )
    looks = f"; it looks like one for {looks}" if looks not in ("", family.title) else ""
    return AdapterError(
        f"{file.path} changes no layer of {family.title}: its {len(names)} tensors begin with "
        f"{', '.join(names[:3])}{looks}",
        allowed="LoRA, LoCon, LoHa, LoKr, DoRA and full differences of the model that is open",
        fix="use it with the model that it was trained on",
    )


def _report_unused(file: WeightFile, family: Family, unused: list[str], *, strict: bool) -> None:
    listed = "".join(f"\n    {name}" for name in unused[:_LISTED])
    more = f"\n    and {len(unused) - _LISTED} more" if len(unused) > _LISTED else ""
    problem = (
        f"{file.path}: {len(unused)} of {len(file.tensors)} tensors belong to no layer of this "
        f"{family.title} model, or to no change that is implemented:{listed}{more}"
    )
    if strict:
        raise AdapterError(
            problem,
            allowed="parts of LoRA, LoCon, LoHa, LoKr, DoRA and full differences",
            fix="strict=False leaves them out; the picture is then not what the file is meant for",
        )
    warnings.warn(problem, AdapterWarning, stacklevel=4)


def _refuse_doubles(file: WeightFile, changes: list[LayerChange]) -> None:
    """Refuse a layer that a file changes twice, under two names."""
    names: dict[tuple[str, str], str] = {}
    for change in changes:
        for place in change.site:
            earlier = names.setdefault((place.component, place.layer), change.name)
            if earlier != change.name:
                raise AdapterError(
                    f"{file.path} changes {place.layer} twice: as {earlier} and as {change.name}",
                    fix="remove one of the two; nothing shows which one is meant",
                )
