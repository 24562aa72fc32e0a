"""Checkpoints in one ``.safetensors`` file with the names of the original training code."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastdeploy_diffusion.checkpoints import published_configs, published_flux_configs
from fastdeploy_diffusion.checkpoints.checkpoint import Checkpoint, Family
from fastdeploy_diffusion.checkpoints.diffusers_keys import CLIP_RULES, T5_RULES
from fastdeploy_diffusion.checkpoints.flux_keys import (
    FLUX_CLIP_INERT_RULES,
    FLUX_INERT_RULES,
    FLUX_RULES,
)
from fastdeploy_diffusion.checkpoints.key_rules import KeyRule, collect_tensors
from fastdeploy_diffusion.checkpoints.ldm_keys import (
    LDM_INERT_RULES,
    LDM_UNET_RULES,
    LDM_VAE_RULES,
)
from fastdeploy_diffusion.checkpoints.open_clip_keys import (
    OPEN_CLIP_PENULTIMATE_RULES,
    OPEN_CLIP_RULES,
)
from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.unknown_file import describe_unknown_file
from fastdeploy_diffusion.errors import CheckpointError, UnsupportedModelError


@dataclass(frozen=True)
class SingleFileLayout:
    """How one family is stored in a single file.

    Attributes:
        family: The family.
        prefixes: Component → prefix of its tensors; all must be there, and together they tell the
            family.
        rules: Component → renaming rules, applied after the prefix.
        widths: Tensors whose second axis tells whether the model has the published shape: name,
            size and meaning.
        configs: Component → config of the published model.
        pipeline_options: As in the published ``model_index.json``.
        needs: A prefix that sets it apart from another layout with the same components.
        lacks: A prefix that the other one has.
    """

    family: Family
    prefixes: Mapping[str, str]
    rules: Mapping[str, Sequence[KeyRule]]
    widths: Sequence[tuple[str, int, str]]
    configs: Mapping[str, Mapping[str, Any]]
    pipeline_options: Mapping[str, Any]
    needs: str = ""
    lacks: str = ""

    def fits(self, names: Collection[str]) -> bool:
        """Tell whether a file with these tensors is stored in this way."""
        wanted = [*self.prefixes.values(), self.needs]
        return all(any(name.startswith(each) for name in names) for each in wanted) and not (
            self.lacks and any(name.startswith(self.lacks) for name in names)
        )


_UNET = "model.diffusion_model."
_VAE = "first_stage_model."
_SHARED_RULES: Mapping[str, Sequence[KeyRule]] = {"unet": LDM_UNET_RULES, "vae": LDM_VAE_RULES}


def _list_unet_widths(attention: str, width: int) -> Sequence[tuple[str, int, str]]:
    return (
        (
            f"{_UNET}{attention}.transformer_blocks.0.attn2.to_k.weight",
            width,
            "cross-attention width",
        ),
        # 9 channels: inpainting; 8: InstructPix2Pix; 5: depth.
        (f"{_UNET}input_blocks.0.0.weight", 4, "input channels of the UNet"),
    )


_FLUX_PREFIXES: Mapping[str, str] = {
    "text_encoder": "text_encoders.clip_l.transformer.",
    "text_encoder_2": "text_encoders.t5xxl.transformer.",
    "transformer": _UNET,
    "vae": "vae.",
}
_FLUX_RULES: Mapping[str, Sequence[KeyRule]] = {
    "text_encoder": (*FLUX_CLIP_INERT_RULES, *CLIP_RULES),
    "text_encoder_2": T5_RULES,
    "transformer": FLUX_RULES,
    "vae": LDM_VAE_RULES,
}
# 384 channels: fill; 128: depth and canny.
_FLUX_WIDTHS = ((f"{_UNET}img_in.weight", 64, "input channels of the transformer"),)
_GUIDANCE = f"{_UNET}guidance_in."

LAYOUTS = (
    SingleFileLayout(
        "sd1",
        {"text_encoder": "cond_stage_model.transformer.", "unet": _UNET, "vae": _VAE},
        {**_SHARED_RULES, "text_encoder": CLIP_RULES},
        _list_unet_widths("input_blocks.1.1", 768),
        published_configs.SD_1_5,
        {},
    ),
    SingleFileLayout(
        "sd2",
        {"text_encoder": "cond_stage_model.model.", "unet": _UNET, "vae": _VAE},
        {**_SHARED_RULES, "text_encoder": OPEN_CLIP_PENULTIMATE_RULES},
        _list_unet_widths("input_blocks.1.1", 1024),
        published_configs.SD_2_1,
        {},
    ),
    SingleFileLayout(
        "sdxl",
        {
            "text_encoder": "conditioner.embedders.0.transformer.",
            "text_encoder_2": "conditioner.embedders.1.model.",
            "unet": _UNET,
            "vae": _VAE,
        },
        {**_SHARED_RULES, "text_encoder": CLIP_RULES, "text_encoder_2": OPEN_CLIP_RULES},
        _list_unet_widths("input_blocks.4.1", 2048),
        published_configs.SDXL_BASE,
        {"force_zeros_for_empty_prompt": True},
    ),
    SingleFileLayout(
        "flux",
        _FLUX_PREFIXES,
        _FLUX_RULES,
        _FLUX_WIDTHS,
        published_flux_configs.FLUX_DEV,
        {},
        needs=_GUIDANCE,
    ),
    SingleFileLayout(
        "flux",
        _FLUX_PREFIXES,
        _FLUX_RULES,
        _FLUX_WIDTHS,
        published_flux_configs.FLUX_SCHNELL,
        {},
        lacks=_GUIDANCE,
    ),
)


class SingleFile(Checkpoint):
    """One file with all components; configs are those of the published models.

    It carries no tokenizer, and does not say what the UNet was trained to predict: see
    ``published_configs``.

    Args:
        path: The file.

    Raises:
        CheckpointError: The file is damaged, incomplete, or something else than a checkpoint.
        UnsupportedModelError: A checkpoint of a kind that is not implemented.
    """

    def __init__(self, path: Path) -> None:
        file = SafetensorsFile(path)
        layout = _tell_layout(file)
        self.path = path
        self.family = layout.family
        self.components = (*layout.prefixes, "scheduler")
        self.pipeline_options = MappingProxyType(dict(layout.pipeline_options))
        self._configs = layout.configs
        self._sources = {
            name: collect_tensors(path, [file], layout.rules[name], prefix)
            for name, prefix in layout.prefixes.items()
        }

    def folder(self, component: str) -> None:
        """None: a single file has no folders and carries no vocabulary."""


def _tell_layout(file: SafetensorsFile) -> SingleFileLayout:
    matches = [layout for layout in LAYOUTS if layout.fits(file.tensors)]
    if len(matches) != 1:
        raise describe_unknown_file(file)
    layout = matches[0]
    _check_widths(file, layout)
    _check_leftovers(file, layout)
    return layout


def _check_widths(file: SafetensorsFile, layout: SingleFileLayout) -> None:
    for name, expected, meaning in layout.widths:
        tensor = file.tensors.get(name)
        if tensor is None or len(tensor.shape) < 2:
            raise CheckpointError(
                f"{file.path} looks like {layout.family}, but {name!r} "
                + ("is missing" if tensor is None else f"has shape {tensor.shape}"),
                fix="download or export the file again",
            )
        if tensor.shape[1] != expected:
            raise UnsupportedModelError(
                f"{file.path} looks like {layout.family}, but {meaning} = {tensor.shape[1]}",
                allowed=f"{expected}: text-to-image models in the shape of the published one",
                fix="convert other shapes to a diffusers folder, whose configs give the sizes",
            )


def _check_leftovers(file: SafetensorsFile, layout: SingleFileLayout) -> None:
    prefixes = tuple(layout.prefixes.values())
    unknown = sorted(
        name
        for name in file.tensors
        if not name.startswith(prefixes)
        and not any(rule.pattern.fullmatch(name) for rule in (*LDM_INERT_RULES, *FLUX_INERT_RULES))
    )
    if unknown:
        listed = ", ".join(unknown[:20])
        raise CheckpointError(
            f"{file.path}: {len(unknown)} tensors belong to no component of {layout.family}: "
            f"{listed}{', …' if len(unknown) > 20 else ''}",
            allowed=", ".join(f"{prefix}*" for prefix in prefixes),
            fix="they may change the picture in ways that are not implemented; remove them only "
            "if you know that they do not",
        )
