"""Writes a Stable Diffusion 1.x checkpoint as one file with the names of the LDM code."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from safetensors.numpy import save_file

from fastdeploy_diffusion.checkpoints.checkpoint import Checkpoint
from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.keys.ldm import LDM_UNET_RULES, LDM_VAE_RULES
from fastdeploy_diffusion.families.keys.reversed_rules import ReversedRule, reverse_rules

_PREFIXES = {
    "text_encoder": "cond_stage_model.transformer.text_model.",
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
}
_RULES: Mapping[str, list[ReversedRule]] = {
    "text_encoder": [],
    "unet": reverse_rules(LDM_UNET_RULES),
    "vae": reverse_rules(LDM_VAE_RULES),
}


def write_single_file(checkpoint: Checkpoint, file: Path) -> None:
    """Write what programs read that know no folders of diffusers; all weights are in memory once.

    Args:
        checkpoint: An opened checkpoint, with the blocks of the published model.
        file: The ``.safetensors`` file; replaced if it is there.

    Raises:
        UnsupportedModelError: It is not of Stable Diffusion 1.x.
    """
    if checkpoint.family.name != "sd1":
        raise UnsupportedModelError(
            f"{checkpoint.path} is of the family {checkpoint.family.name}",
            allowed="sd1: of the others no single file is written yet",
        )
    tensors: dict[str, npt.NDArray[Any]] = {}
    for component in _PREFIXES:
        source = checkpoint.tensors(component)
        for name in source:
            stored, is_squeezed = name_in_single_file(component, name, source.names)
            # numpy has no bfloat16: such weights are written in float32, which loses nothing.
            is_bfloat = source.dtype(name) == "BF16"
            array = source.read(name) if is_bfloat else source.read_stored(name)
            tensors[stored] = array[..., None, None] if is_squeezed else array
    save_file(tensors, file, metadata={"format": "pt"})


def name_in_single_file(component: str, name: str, names: Collection[str]) -> tuple[str, bool]:
    """Translate a canonical name.

    Args:
        component: The component.
        name: One of its tensors.
        names: All of its tensors.

    Returns:
        The name in the file, and whether the matrix is stored there as a 1 × 1 convolution.
    """
    for rule in _RULES[component]:
        if candidates := rule.apply(name):
            stored = candidates[0]
            if len(candidates) > 1:
                # An upsampler's number is 1, and 2 where attentions stand before it.
                level = name.partition(".upsamplers")[0]
                stored = candidates[any(each.startswith(f"{level}.attentions.") for each in names)]
            is_squeezed = rule.is_squeezed and name.endswith("weight")
            return _PREFIXES[component] + stored, is_squeezed
    return _PREFIXES[component] + name, False
