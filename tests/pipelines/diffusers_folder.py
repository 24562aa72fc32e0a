"""Small Stable Diffusion checkpoints with random weights, written by diffusers itself."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from drawn_parameters import vary_vectors
from tokenizer_folders import write_vocabulary
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

_UNET: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "cross_attention_dim": 24,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "sample_size": 16,
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
# What tells the two families apart in their published configs.
_FAMILIES: dict[str, dict[str, Any]] = {
    "sd1": {
        "unet": {"attention_head_dim": 2},
        "text": {"hidden_act": "quick_gelu"},
        "scheduler": {},
    },
    "sd2": {
        "unet": {"attention_head_dim": [1, 2], "use_linear_projection": True},
        "text": {"hidden_act": "gelu"},
        "scheduler": {"prediction_type": "v_prediction"},
    },
}


def write_diffusers_folder(
    folder: Path, family: str, seed: int, channels: int = 4
) -> StableDiffusionPipeline:
    """Write a checkpoint of one family and give diffusers' own pipeline of it.

    Args:
        channels: Of the UNet's input; 9 for inpainting.
    """
    torch.manual_seed(seed)
    options = _FAMILIES[family]
    vae = AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        sample_size=32,
    )
    (folder / "vocabulary").mkdir(parents=True)
    write_vocabulary(folder / "vocabulary")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "vocabulary", model_max_length=20)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=20,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **options["text"],
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        **options["scheduler"],
    )
    pipeline = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(**_UNET, **options["unet"], in_channels=channels).eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for each in (vae, pipeline.text_encoder, pipeline.unet):
        vary_vectors(each, seed)
    # diffusers' clip_skip reaches for an attribute that transformers 5 has dropped.
    pipeline.text_encoder.__dict__.setdefault("text_model", pipeline.text_encoder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder / "model")
    return pipeline
