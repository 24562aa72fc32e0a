"""Checkpoints in the folder layout of diffusers: ``model_index.json`` and a folder a component."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastdeploy_diffusion.checkpoints.checkpoint import Checkpoint
from fastdeploy_diffusion.checkpoints.tensor_source import collect_tensors
from fastdeploy_diffusion.checkpoints.weight_files import open_weight_files
from fastdeploy_diffusion.errors import CheckpointError, UnsupportedModelError
from fastdeploy_diffusion.families.family import Family
from fastdeploy_diffusion.families.registry import FAMILIES
from fastdeploy_diffusion.hints import find_hint
from fastdeploy_diffusion.json_object import read_json_object
from fastdeploy_diffusion.shown import show

# Components of published pipelines that check finished pictures, which are not used here.
_INERT_COMPONENTS = frozenset({"safety_checker", "feature_extractor"})


class DiffusersFolder(Checkpoint):
    """A folder with ``model_index.json``.

    All headers and configs are read here, so that a damaged folder fails at once.

    Args:
        variant: ``fp16`` and the like, None for the plain files; it holds for every component.

    Raises:
        CheckpointError: A file is missing, damaged or unsafe.
        UnsupportedModelError: A pipeline or component class that is not implemented.
    """

    def __init__(self, path: Path, variant: str | None) -> None:
        self.path = path
        index = read_json_object(path / "model_index.json")
        self.family = _tell_family(path, index, _list_families(path, index))
        networks, self.components = self.family.networks, self.family.components
        self.pipeline_options = MappingProxyType(_check_index(path, index, self.family))
        self._configs = {
            "scheduler": _read_scheduler(path, index),
            **{name: read_json_object(path / name / "config.json") for name in networks},
        }
        root = path.resolve()
        self._sources = {
            name: collect_tensors(
                path / name, open_weight_files(path / name, kind.stem, variant, root), kind.rules
            )
            for name, kind in networks.items()
        }

    def folder(self, component: str) -> Path | None:
        """Locate the folder of a component."""
        if component not in self.components:
            raise CheckpointError(
                f"{self.path}: no component {component!r}", allowed=", ".join(self.components)
            )
        return self.path / component


def _read_scheduler(path: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    """Read the scheduler's config, with the class that the index names, as diffusers does.

    Warns:
        UserWarning: The file names another class.
    """
    file = path / "scheduler" / "scheduler_config.json"
    config = read_json_object(file)
    entry = index.get("scheduler")
    named = entry[-1] if isinstance(entry, list) and entry else None
    own = config.get("_class_name")
    if not isinstance(named, str) or own == named:
        return config
    if own is not None:
        warnings.warn(
            f"{path / 'model_index.json'} names {show(named)} as scheduler, and {file} "
            f"{show(own)}: as in diffusers, the first is taken, with the options of the second",
            UserWarning,
            stacklevel=2,
        )
    return {**config, "_class_name": named}


def _list_families(path: Path, index: Mapping[str, Any]) -> list[Family]:
    name = index.get("_class_name")
    known = FAMILIES.values()
    if found := [each for each in known if name in (each.index_class, *each.other_classes)]:
        return found
    hint = find_hint(name) if isinstance(name, str) else None
    missing = f": {hint.missing}" if hint and hint.missing else ""
    raise UnsupportedModelError(
        f"{path / 'model_index.json'}: _class_name = {show(name)} is not implemented{missing}",
        allowed=", ".join(dict.fromkeys(each.index_class for each in FAMILIES.values())),
    )


def _tell_family(path: Path, index: Mapping[str, Any], families: list[Family]) -> Family:
    """Choose among the families of one pipeline class, those with more components first."""
    whole = [each for each in families if all(_names(index, part) for part in each.networks)]
    for each in sorted(whole or families, key=lambda each: -len(each.networks)):
        if each.told_by is None:
            return each
        component, key, is_true = each.told_by
        if bool(read_json_object(path / component / "config.json").get(key)) == is_true:
            return each
    return families[0]


def _names(index: Mapping[str, Any], component: str) -> bool:
    """Tell whether an index names a component; null stands for one that is left out."""
    entry = index.get(component)
    return isinstance(entry, list) and entry != [None, None]


def _check_index(path: Path, index: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """Check the components that the index names and return its other entries."""
    components = family.components
    options: dict[str, Any] = {}
    present: dict[str, Any] = {}
    for key, value in index.items():
        if isinstance(value, list):
            if _names(index, key):
                present[key] = value[-1] if value else None
        elif not key.startswith("_"):
            options[key] = value

    where = path / "model_index.json"
    if unknown := present.keys() - set(components) - _INERT_COMPONENTS:
        raise UnsupportedModelError(
            f"{where}: component {show(min(unknown))} is not implemented",
            allowed=", ".join((*components, *sorted(_INERT_COMPONENTS))),
        )
    if absent := [name for name in components if name not in present]:
        raise CheckpointError(
            f"{where} names no {', '.join(absent)}",
            allowed=f"all of {', '.join(components)}",
            fix="download or export the whole checkpoint folder again, with every component",
        )
    # Schedulers and tokenizers are checked by their own readers, which know what they implement.
    for name, kind in family.networks.items():
        if present[name] != kind.name:
            raise UnsupportedModelError(
                f"{where}: {name} of class {show(present[name])} is not implemented",
                allowed=kind.name,
                fix=f"give a checkpoint whose {name} is a {kind.name}",
            )
    return options
