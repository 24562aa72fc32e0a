"""Components from files of their own, in place of those of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastdeploy_diffusion.checkpoints.checkpoint import Checkpoint
from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource, collect_tensors
from fastdeploy_diffusion.checkpoints.weight_file import WeightFile
from fastdeploy_diffusion.checkpoints.weight_files import (
    WEIGHT_SUFFIXES,
    open_weight_file,
    open_weight_files,
)
from fastdeploy_diffusion.errors import CheckpointError, ConfigError, UnsupportedModelError
from fastdeploy_diffusion.families.family import Family
from fastdeploy_diffusion.families.keys.gguf import GGUF_T5_RULES
from fastdeploy_diffusion.families.keys.ldm import LDM_INERT_RULES
from fastdeploy_diffusion.families.keys.rules import KeyRule, ignore
from fastdeploy_diffusion.families.networks.network_kind import NetworkKind
from fastdeploy_diffusion.json_object import read_json_object
from fastdeploy_diffusion.model_files import find_file
from fastdeploy_diffusion.shown import show

# Other programs' prefixes of a component that lies alone in its file.
_PREFIXES: Mapping[str, Sequence[str]] = {
    "denoiser": ("model.diffusion_model.", "diffusion_model."),
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": ("text_encoder.",),
}
# Of the training, in files of a component alone.
_TRAINING = (*LDM_INERT_RULES, ignore(r"loss\..+"))


class Part(NamedTuple):
    """A component that was opened; weights stay on disk until they are read."""

    path: Path
    config: Mapping[str, Any]
    config_file: Path
    source: TensorSource


class AssembledCheckpoint(Checkpoint):
    """A checkpoint, with some of its components from elsewhere.

    Args:
        parts: Key of the configuration, ``denoiser``, ``vae``, ``text_encoder`` or
            ``text_encoder_2`` → a file of weights, or a folder of diffusers.
        variant: Of folders, where they have it.

    Raises:
        CheckpointError: A file is missing, damaged, or not of that component.
        UnsupportedModelError: A folder has a component of another class.
        ConfigError: The checkpoint is a bundle, or its family has no such component.
    """

    def __init__(
        self, base: Checkpoint, parts: Mapping[str, str | Path], variant: str | None
    ) -> None:
        if base.is_built:
            raise ConfigError(
                f"{', '.join(parts)} has a model_path, and {base.path} is a bundle, which is built",
                allowed="model_path of components of a checkpoint",
                fix="make a bundle of the checkpoint with these components",
            )
        self._base = base
        self.path, self.family, self.components = base.path, base.family, base.components
        self.pipeline_options = base.pipeline_options
        self.parts = {
            name: _open_part(Path(path).expanduser(), base, name, variant)
            for key, path in parts.items()
            for name in [_find_component(base.family, key)]
        }
        opened = self.parts.items()
        self._configs = {**base._configs, **{name: each.config for name, each in opened}}
        self._sources = {**base._sources, **{name: each.source for name, each in opened}}

    @property
    def part_names(self) -> dict[str, str]:
        """The names of components that come from elsewhere, in metadata."""
        return {name: each.path.absolute().name for name, each in self.parts.items()}

    def folder(self, component: str) -> Path | None:
        """Locate a component's folder in the checkpoint itself."""
        return self._base.folder(component)

    def _find_config(self, component: str) -> Path:
        if component in self.parts:
            return self.parts[component].config_file
        return super()._find_config(component)


def _find_component(family: Family, key: str) -> str:
    """Find the component that a section of a configuration is of.

    Raises:
        ConfigError: The family has none.
    """
    keys = {family.name_section(name): name for name in family.networks}
    if key not in keys:
        raise ConfigError(
            f"{key} has a model_path, and {family.title} has no such component",
            allowed=", ".join(keys),
            fix="leave it out, or give it to the component that is meant",
        )
    return keys[key]


def _open_part(path: Path, base: Checkpoint, component: str, variant: str | None) -> Part:
    kind = base.family.networks[component]
    if path.is_dir():
        return _open_folder(path, kind, component, variant)
    if not path.exists():
        raise CheckpointError(
            f"{base.family.name_section(component)}.model_path: {path} does not exist",
            allowed=_describe_allowed(kind),
            fix="correct the path",
        )
    file = open_weight_file(path, _describe_allowed(kind), f"a file of weights of {component}")
    config = base.config(component)
    stacks = [name for _, name, _ in kind.config.from_dict(config).stacks]
    for prefix, rules in _list_namings(base.family, component, file):
        source = collect_tensors(path, [file], rules, prefix)
        if source.count_layers().keys() >= set(stacks):
            return Part(path, config, base._find_config(component), source)
    first = ", ".join(sorted(file.tensors)[:5])
    raise CheckpointError(
        f"{path} holds no {component} of {base.family.title}; its {len(file.tensors)} tensors "
        f"begin with {first}",
        allowed=f"weights of class {kind.name}, named as in its original code or in {kind.library}",
        fix="give the file of this component",
    )


def _open_folder(path: Path, kind: NetworkKind, component: str, variant: str | None) -> Part:
    """Open the folder of a component, or that of a whole checkpoint which has it."""
    if find_file(path / "model_index.json"):
        path = path / component
    config_file = path / "config.json"
    if not find_file(config_file):
        raise CheckpointError(
            f"{path} has no config.json",
            allowed=_describe_allowed(kind),
            fix="give the component's own folder, or its file of weights",
        )
    config = read_json_object(config_file)
    given = config.get("_class_name") or config.get("architectures") or [kind.name]
    if kind.name not in (given if isinstance(given, list) else [given]):
        raise UnsupportedModelError(
            f"{config_file}: {component} of class {show(given)} is not implemented",
            allowed=kind.name,
            fix=f"give a folder whose model is of class {kind.name}",
        )
    # Only where there is none of that variant: one that is damaged is an error.
    has_variant = variant is not None and any(path.glob(f"*.{variant}*"))
    files = open_weight_files(path, kind.stem, variant if has_variant else None, path.resolve())
    return Part(path, config, config_file, collect_tensors(path, files, kind.rules))


def _list_namings(
    family: Family, component: str, file: WeightFile
) -> Iterator[tuple[str, Sequence[KeyRule]]]:
    """List the prefixes that a file has, with each set of names that may follow."""
    kind = family.networks[component]
    own = [layout.prefixes[component] for layout in family.layouts]
    prefixes = dict.fromkeys([*own, *_PREFIXES.get(kind.role, ()), ""])
    namings = [*(layout.rules[component] for layout in family.layouts), kind.rules, GGUF_T5_RULES]
    for prefix in prefixes:
        if any(name.startswith(prefix) for name in file.tensors):
            yield from ((prefix, (*_TRAINING, *rules)) for rules in namings)


def _describe_allowed(kind: NetworkKind) -> str:
    return (
        f"a folder of {kind.library} with config.json of class {kind.name}, or a file of its "
        f"weights: {', '.join(WEIGHT_SUFFIXES)}"
    )
