"""Stable Diffusion XL (Podell et al., 2023): the base model, and its refiner."""

from dataclasses import replace

from fastdeploy_diffusion.families.family import (
    CLIP_TOKENIZER,
    Defaults,
    Family,
    Published,
    SingleFileLayout,
    Tokenizer,
)
from fastdeploy_diffusion.families.keys.diffusers import CLIP_RULES
from fastdeploy_diffusion.families.keys.ldm import LDM_INERT_RULES
from fastdeploy_diffusion.families.keys.open_clip import OPEN_CLIP_RULES
from fastdeploy_diffusion.families.networks.autoencoder import AUTOENCODER
from fastdeploy_diffusion.families.networks.clip import CLIP, PROJECTED_CLIP
from fastdeploy_diffusion.families.networks.unet import REFINER_UNET, UNET
from fastdeploy_diffusion.families.published.sd import SDXL_BASE, SDXL_REFINER_1
from fastdeploy_diffusion.families.sd import (
    SHARED_PREFIXES,
    SHARED_RULES,
    UNET_INPUTS,
    list_unet_widths,
)

SDXL = Family(
    name="sdxl",
    title="SDXL",
    pipeline="sdxl:SDXLPipeline",
    request="sdxl_request:SDXLRequest",
    index_class="StableDiffusionXLPipeline",
    networks={
        "text_encoder": CLIP,
        "text_encoder_2": PROJECTED_CLIP,
        "unet": UNET,
        "vae": AUTOENCODER,
    },
    tokenizers={
        "tokenizer": CLIP_TOKENIZER,
        "tokenizer_2": Tokenizer("CLIPTokenizer", "that pads with !", pad_token="!"),
    },
    layouts=(
        SingleFileLayout(
            {
                "text_encoder": "conditioner.embedders.0.transformer.",
                "text_encoder_2": "conditioner.embedders.1.model.",
                **SHARED_PREFIXES,
            },
            {**SHARED_RULES, "text_encoder": CLIP_RULES, "text_encoder_2": OPEN_CLIP_RULES},
            list_unet_widths("input_blocks.4.1", 2048),
            UNET_INPUTS,
            SDXL_BASE,
        ),
    ),
    published={"sdxl": Published(SDXL_BASE, "F16")},
    defaults=Defaults(128, 5.0, strength=0.3, masked_strength=0.9999, masked_guidance=7.5),
    options={"force_zeros_for_empty_prompt": True},
    inert=LDM_INERT_RULES,
    other_classes=(
        "StableDiffusionXLInpaintPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInstructPix2PixPipeline",
    ),
    editing=Defaults(128, 5.0, steps=100),
    has_refiner=True,
)
SDXL_REFINER = replace(
    SDXL,
    name="sdxl-refiner",
    title="SDXL's refiner",
    index_class="StableDiffusionXLImg2ImgPipeline",
    networks={"text_encoder_2": PROJECTED_CLIP, "unet": REFINER_UNET, "vae": AUTOENCODER},
    tokenizers={"tokenizer_2": SDXL.tokenizers["tokenizer_2"]},
    layouts=(
        SingleFileLayout(
            {"text_encoder_2": "conditioner.embedders.0.model.", **SHARED_PREFIXES},
            {**SHARED_RULES, "text_encoder_2": OPEN_CLIP_RULES},
            list_unet_widths("input_blocks.4.1", 1280),
            UNET_INPUTS,
            SDXL_REFINER_1,
        ),
    ),
    published={},
    options={"force_zeros_for_empty_prompt": False, "requires_aesthetics_score": True},
    absent=(*SDXL.absent, "text_encoder", "tokenizer"),
    other_classes=(),
    editing=None,
    has_refiner=False,
    is_refiner=True,
)
