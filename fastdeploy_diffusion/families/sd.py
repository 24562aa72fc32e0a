"""Stable Diffusion 1.x and 2.x (Rombach et al., 2022), and the layout that XL shares with them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fastdeploy_diffusion.families.family import (
    CLIP_TOKENIZER,
    Defaults,
    DenoiserInputs,
    Family,
    Published,
    SingleFileLayout,
)
from fastdeploy_diffusion.families.keys.diffusers import CLIP_RULES
from fastdeploy_diffusion.families.keys.ldm import LDM_INERT_RULES, LDM_UNET_RULES, LDM_VAE_RULES
from fastdeploy_diffusion.families.keys.open_clip import OPEN_CLIP_PENULTIMATE_RULES
from fastdeploy_diffusion.families.keys.rules import KeyRule
from fastdeploy_diffusion.families.networks.autoencoder import AUTOENCODER
from fastdeploy_diffusion.families.networks.clip import CLIP
from fastdeploy_diffusion.families.networks.unet import UNET
from fastdeploy_diffusion.families.published.sd import SD_1_5, SD_2_1

DENOISER = "model.diffusion_model."
SHARED_PREFIXES: Mapping[str, str] = {"unet": DENOISER, "vae": "first_stage_model."}
SHARED_RULES: Mapping[str, Sequence[KeyRule]] = {"unet": LDM_UNET_RULES, "vae": LDM_VAE_RULES}


UNET_INPUTS = DenoiserInputs("unet", f"{DENOISER}input_blocks.0.0.weight", 4, 9)
_INPUTS = UNET_INPUTS._replace(edited=8)  # InstructPix2Pix; 5 channels: depth


def list_unet_widths(attention: str, width: int) -> Sequence[tuple[str, int, str]]:
    """List the tensors that tell a UNet's widths: of the text conditioning."""
    keys = f"{DENOISER}{attention}.transformer_blocks.0.attn2.to_k.weight"
    return ((keys, width, "cross-attention width"),)


# SD 2.x differs at every width, also of small test models: the transformers' input
# and output projections are linear layers, in SD 1.x they are 1×1 convolutions.
_LINEAR = ("unet", "use_linear_projection")

SD1 = Family(
    name="sd1",
    title="SD 1.x",
    pipeline="sd:SDPipeline",
    request="request:GenerationRequest",
    index_class="StableDiffusionPipeline",
    networks={"text_encoder": CLIP, "unet": UNET, "vae": AUTOENCODER},
    tokenizers={"tokenizer": CLIP_TOKENIZER},
    layouts=(
        SingleFileLayout(
            {"text_encoder": "cond_stage_model.transformer.", **SHARED_PREFIXES},
            {**SHARED_RULES, "text_encoder": CLIP_RULES},
            list_unet_widths("input_blocks.1.1", 768),
            _INPUTS,
            SD_1_5,
        ),
    ),
    published={"sd15": Published(SD_1_5, "F16")},
    defaults=Defaults(64, 7.5),
    editing=Defaults(64, 7.5, steps=100),
    told_by=(*_LINEAR, False),
    absent=("feature_extractor", "safety_checker"),
    inert=LDM_INERT_RULES,
    other_classes=("StableDiffusionInpaintPipeline", "StableDiffusionInstructPix2PixPipeline"),
)
SD2 = replace(
    SD1,
    name="sd2",
    title="SD 2.x",
    layouts=(
        SingleFileLayout(
            {"text_encoder": "cond_stage_model.model.", **SHARED_PREFIXES},
            {**SHARED_RULES, "text_encoder": OPEN_CLIP_PENULTIMATE_RULES},
            list_unet_widths("input_blocks.1.1", 1024),
            _INPUTS,
            SD_2_1,
        ),
    ),
    published={"sd21": Published(SD_2_1, "F16")},
    told_by=(*_LINEAR, True),
)
