"""Checkpoints in one file with the names of the original training code."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from fastdeploy_diffusion.checkpoints.checkpoint import Checkpoint
from fastdeploy_diffusion.checkpoints.tensor_source import collect_tensors
from fastdeploy_diffusion.checkpoints.unknown_file import describe_unknown_file
from fastdeploy_diffusion.checkpoints.weight_file import WeightFile
from fastdeploy_diffusion.errors import CheckpointError, UnsupportedModelError
from fastdeploy_diffusion.families.family import Family, SingleFileLayout
from fastdeploy_diffusion.families.registry import FAMILIES


class SingleFile(Checkpoint):
    """One file with the components of a model; configs are those of the published models.

    It has no tokenizer, and does not say what the UNet was trained to predict: see
    ``families/published``.

    Args:
        given: Keys of the configuration, as ``vae``, of components that come from elsewhere. The
            file may lack these, but for the denoiser, which tells the family.

    Raises:
        CheckpointError: The file is damaged, incomplete, or something else than a checkpoint.
        UnsupportedModelError: A checkpoint of a kind that is not implemented.
    """

    def __init__(self, file: WeightFile, given: Collection[str] = ()) -> None:
        self.family, layout = _tell_layout(file, given)
        self.path = file.path
        self.components = (*self.family.networks, "scheduler")
        self.pipeline_options = MappingProxyType(dict(self.family.options))
        self._configs = _fit_inputs(file, layout, self.family.name)
        self._sources = {
            name: collect_tensors(file.path, [file], layout.rules[name], prefix)
            for name, prefix in layout.prefixes.items()
        }

    def folder(self, component: str) -> None:
        """Return None: a single file has no folders and carries no vocabulary."""


def _tell_layout(file: WeightFile, given: Collection[str]) -> tuple[Family, SingleFileLayout]:
    layouts = [(family, layout) for family in FAMILIES.values() for layout in family.layouts]
    matches = [(family, layout) for family, layout in layouts if layout.fits(file.tensors)]
    if not matches:
        matches = [
            (family, found)
            for family, layout in layouts
            for found in _list_partial(layout)
            if _has_denoiser(file, found)
        ]
    if len(matches) != 1:
        raise describe_unknown_file(file)
    family, layout = matches[0]
    layout = _drop_absent(file, layout)
    _check_components(file, family, layout, given)
    _check_widths(file, layout, family.name)
    _check_leftovers(file, layout, family.name)
    return family, layout


def _list_partial(layout: SingleFileLayout) -> list[SingleFileLayout]:
    """List the layouts of files that lack components: the denoiser may have no prefix then."""
    component = layout.inputs.component
    whole = layout.prefixes[component]

    def drop(name: str) -> str:
        return name.removeprefix(whole)

    bare = replace(
        layout,
        prefixes={component: ""},
        widths=[(drop(name), size, meaning) for name, size, meaning in layout.widths],
        inputs=layout.inputs._replace(tensor=drop(layout.inputs.tensor)),
        needs=drop(layout.needs),
        lacks=drop(layout.lacks),
    )
    return [layout, bare]


def _has_denoiser(file: WeightFile, layout: SingleFileLayout) -> bool:
    """Tell whether a file has the denoiser of a layout, by the shapes of its tensors."""
    widths = [(name, (size,)) for name, size, _ in layout.widths]
    own = file.tensors.get(layout.inputs.tensor)
    return (
        own is not None
        and layout.tells_apart(file.tensors)
        and all(
            name in file.tensors and file.tensors[name].shape[1:2] == size for name, size in widths
        )
    )


def _drop_absent(file: WeightFile, layout: SingleFileLayout) -> SingleFileLayout:
    present = {
        name: prefix
        for name, prefix in layout.prefixes.items()
        if any(each.startswith(prefix) for each in file.tensors)
    }
    return replace(layout, prefixes=present)


def _check_components(
    file: WeightFile, family: Family, layout: SingleFileLayout, given: Collection[str]
) -> None:
    missing = [family.name_section(name) for name in family.networks if name not in layout.prefixes]
    lacking = [key for key in missing if key not in given]
    if lacking:
        keys = ", ".join(f"{key}: {{model_path: …}}" for key in lacking)
        raise CheckpointError(
            f"{file.path} holds {', '.join(layout.prefixes)} of {family.title}, without "
            f"{', '.join(lacking)}",
            allowed=f"a file with all components, or others for {', '.join(lacking)}",
            fix=f"add to the configuration: {keys}",
        )


def _check_widths(file: WeightFile, layout: SingleFileLayout, family: str) -> None:
    for name, expected, meaning in layout.widths:
        width = _measure_width(file, name, family)
        if width != expected:
            raise UnsupportedModelError(
                f"{file.path} looks like {family}, but {meaning} = {width}",
                allowed=f"{expected}: models in the shape of the published one",
                fix="convert other shapes to a diffusers folder, whose configs give the sizes",
            )


def _fit_inputs(
    file: WeightFile, layout: SingleFileLayout, family: str
) -> Mapping[str, Mapping[str, Any]]:
    """Take the published configs, with the input channels that the file's denoiser has."""
    name, tensor, text, masked, edited = layout.inputs
    channels = _measure_width(file, tensor, family)
    if channels == text:
        return layout.configs
    kinds = {text: "text-to-image", masked: "inpainting", edited: "InstructPix2Pix"}
    if channels not in kinds:
        raise UnsupportedModelError(
            f"{file.path} looks like {family}, but input channels of the {name} = {channels}",
            allowed="; ".join(f"{n}: {kind} models" for n, kind in kinds.items() if n),
            fix="take a model of one of these kinds",
        )
    changed = {"in_channels": channels, "out_channels": text}
    return {**layout.configs, name: {**layout.configs[name], **changed}}


def _measure_width(file: WeightFile, name: str, family: str) -> int:
    tensor = file.tensors.get(name)
    if tensor is None or len(tensor.shape) < 2:
        raise CheckpointError(
            f"{file.path} looks like {family}, but {name!r} "
            + ("is missing" if tensor is None else f"has shape {tensor.shape}"),
            fix="download or export the file again",
        )
    return int(tensor.shape[1])


def _check_leftovers(file: WeightFile, layout: SingleFileLayout, family: str) -> None:
    inert = [rule for each in FAMILIES.values() for rule in each.inert]
    prefixes = tuple(layout.prefixes.values())
    unknown = sorted(
        name
        for name in file.tensors
        if not name.startswith(prefixes) and not any(rule.match(name) for rule in inert)
    )
    if unknown:
        listed = ", ".join(unknown[:20])
        raise CheckpointError(
            f"{file.path}: {len(unknown)} tensors belong to no component of {family}: "
            f"{listed}{', …' if len(unknown) > 20 else ''}",
            allowed=", ".join(f"{prefix}*" for prefix in prefixes),
            fix="they may change the picture in ways that are not implemented; remove them only "
            "if you know that they do not",
        )
