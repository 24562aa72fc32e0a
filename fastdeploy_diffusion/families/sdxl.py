"""Stable Diffusion XL (Podell et al., 2023), the base model."""

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
from fastdeploy_diffusion.families.networks.unet import UNET
from fastdeploy_diffusion.families.published.sd import SDXL_BASE
from fastdeploy_diffusion.families.sd import SHARED_PREFIXES, SHARED_RULES, list_unet_widths

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
            SDXL_BASE,
        ),
    ),
    published={"sdxl": Published(SDXL_BASE, "F16")},
    defaults=Defaults(128, 5.0, strength=0.3, masked_strength=0.9999, masked_guidance=7.5),
    options={"force_zeros_for_empty_prompt": True},
    inert=LDM_INERT_RULES,
    inpainting_class="StableDiffusionXLInpaintPipeline",
)
