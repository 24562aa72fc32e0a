"""Small SDXL checkpoints with random weights, written by diffusers itself."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from drawn_parameters import vary_vectors
from tokenizer_folders import write_vocabulary
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

LENGTH = 20  # of texts, in tokens


def write_sdxl_folder(
    folder: Path, seed: int, *, forces_zeros: bool = True, channels: int = 4
) -> StableDiffusionXLPipeline:
    """Write a checkpoint like the base model's and give diffusers' own pipeline of it.

    Args:
        channels: Of the UNet's input; 9 for inpainting.
    """
    torch.manual_seed(seed)
    vocabulary = folder / "vocabulary"
    vocabulary.mkdir(parents=True)
    write_vocabulary(vocabulary)
    tokenizer = CLIPTokenizer.from_pretrained(vocabulary, model_max_length=LENGTH)
    tokenizer_2 = CLIPTokenizer.from_pretrained(vocabulary, model_max_length=LENGTH, pad_token="!")
    ids = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        # As the published configs say it, wrongly: the largest id ends a text.
        "eos_token_id": 2,
    }
    text = CLIPTextConfig(
        hidden_size=24, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, **ids
    )
    text_2 = CLIPTextConfig(
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        hidden_act="gelu",
        projection_dim=28,
        **ids,
    )
    unet = UNet2DConditionModel(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        attention_head_dim=[2, 4, 4],
        block_out_channels=(16, 32, 32),
        cross_attention_dim=24 + 32,
        in_channels=channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        projection_class_embeddings_input_dim=28 + 6 * 8,
        sample_size=16,
        transformer_layers_per_block=[1, 1, 2],
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        use_linear_projection=True,
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        sample_size=32,
        scaling_factor=0.13025,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=vae.eval(),
        text_encoder=CLIPTextModel(text).eval(),
        text_encoder_2=CLIPTextModelWithProjection(text_2).eval(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=unet.eval(),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
        force_zeros_for_empty_prompt=forces_zeros,
        add_watermarker=False,
    )
    for each in (vae, pipeline.text_encoder, pipeline.text_encoder_2, unet):
        vary_vectors(each, seed)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder / "model")
    return pipeline


def write_refiner_folder(folder: Path, seed: int) -> StableDiffusionXLImg2ImgPipeline:
    """Write a checkpoint like the refiner's and give diffusers' own pipeline of it."""
    base = write_sdxl_folder(folder, seed)
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        attention_head_dim=[2, 4, 4, 4],
        block_out_channels=(16, 32, 32, 32),
        cross_attention_dim=32,
        down_block_types=(
            *("DownBlock2D", "CrossAttnDownBlock2D"),
            *("CrossAttnDownBlock2D", "DownBlock2D"),
        ),
        layers_per_block=1,
        norm_num_groups=8,
        projection_class_embeddings_input_dim=28 + 5 * 8,
        sample_size=16,
        transformer_layers_per_block=2,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        use_linear_projection=True,
    )
    vary_vectors(unet, seed)
    refiner = StableDiffusionXLImg2ImgPipeline(
        vae=base.vae,
        text_encoder=None,
        text_encoder_2=base.text_encoder_2,
        tokenizer=None,
        tokenizer_2=base.tokenizer_2,
        unet=unet.eval(),
        scheduler=base.scheduler,
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    refiner.set_progress_bar_config(disable=True)
    refiner.save_pretrained(folder / "refiner")
    return refiner
