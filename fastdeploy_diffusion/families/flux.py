"""Flux (Black Forest Labs, 2024): FLUX.1-dev, FLUX.1-schnell, and models of their kind."""

from collections.abc import Mapping
from functools import partial

from fastdeploy_diffusion.families.family import (
    CLIP_TOKENIZER,
    Defaults,
    DenoiserInputs,
    Family,
    Published,
    SingleFileLayout,
    Tokenizer,
)
from fastdeploy_diffusion.families.keys.diffusers import CLIP_RULES, T5_RULES
from fastdeploy_diffusion.families.keys.flux import (
    FLUX_CLIP_INERT_RULES,
    FLUX_INERT_RULES,
    FLUX_RULES,
)
from fastdeploy_diffusion.families.keys.ldm import LDM_VAE_RULES
from fastdeploy_diffusion.families.networks.autoencoder import AUTOENCODER
from fastdeploy_diffusion.families.networks.clip import CLIP
from fastdeploy_diffusion.families.networks.flux import FLUX_TRANSFORMER
from fastdeploy_diffusion.families.networks.t5 import T5
from fastdeploy_diffusion.families.published.flux import FLUX_DEV, FLUX_SCHNELL

_TRANSFORMER = "model.diffusion_model."
_PREFIXES: Mapping[str, str] = {
    "text_encoder": "text_encoders.clip_l.transformer.",
    "text_encoder_2": "text_encoders.t5xxl.transformer.",
    "transformer": _TRANSFORMER,
    "vae": "vae.",
}
_layout = partial(
    SingleFileLayout,
    _PREFIXES,
    {
        "text_encoder": (*FLUX_CLIP_INERT_RULES, *CLIP_RULES),
        "text_encoder_2": T5_RULES,
        "transformer": FLUX_RULES,
        "vae": LDM_VAE_RULES,
    },
    (),
    # 384 channels: fill; 128: depth and canny.
    DenoiserInputs("transformer", f"{_TRANSFORMER}img_in.weight", 64, 384),
)
_defaults = partial(Defaults, strength=0.6, masked_strength=0.6, rounds_steps_up=True)
_GUIDANCE = f"{_TRANSFORMER}guidance_in."

FLUX = Family(
    name="flux",
    title="Flux",
    pipeline="flux:FluxPipeline",
    request="flux_request:FluxRequest",
    index_class="FluxPipeline",
    networks={
        "text_encoder": CLIP,
        "text_encoder_2": T5,
        "transformer": FLUX_TRANSFORMER,
        "vae": AUTOENCODER,
    },
    tokenizers={"tokenizer": CLIP_TOKENIZER, "tokenizer_2": Tokenizer("T5TokenizerFast", "of T5")},
    layouts=(_layout(FLUX_DEV, needs=_GUIDANCE), _layout(FLUX_SCHNELL, lacks=_GUIDANCE)),
    published={
        "flux-dev": Published(FLUX_DEV, "BF16"),
        "flux-schnell": Published(FLUX_SCHNELL, "BF16"),
    },
    defaults=_defaults(
        128, 3.5, steps=28, max_sequence_length=512, picture_guidance=7.0, masked_guidance=7.0
    ),
    unguided=_defaults(128, 0.0, steps=4, max_sequence_length=256),
    filling=Defaults(
        128, 30.0, steps=50, max_sequence_length=512, strength=1.0, rounds_steps_up=True
    ),
    inert=FLUX_INERT_RULES,
    is_packed=True,
    other_classes=("FluxFillPipeline",),
)
