"""Small Flux checkpoints with random weights, written by diffusers itself."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxFillPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
)
from drawn_parameters import vary_vectors
from t5_tokenizer_folders import make_reference
from tokenizer_folders import write_vocabulary
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel


def write_flux_folder(
    folder: Path, *, is_dev: bool, seed: int, fills: bool = False
) -> FluxPipeline | FluxFillPipeline:
    """Write a checkpoint like dev's or schnell's and give diffusers' own pipeline of it.

    Args:
        fills: Whether it is like Fill's, which takes masked latents and masks.
    """
    torch.manual_seed(seed)
    (folder / "vocabulary").mkdir(parents=True)
    write_vocabulary(folder / "vocabulary")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "vocabulary", model_max_length=20)
    tokenizer_2 = make_reference()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=20,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    text_2 = T5Config(
        vocab_size=len(tokenizer_2),
        d_model=32,
        d_kv=8,
        d_ff=40,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        latent_channels=4,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    transformer = FluxTransformer2DModel(
        in_channels=48 if fills else 16,  # four latents, as many masked, and 16 pixels of the mask
        out_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=24,
        guidance_embeds=is_dev,
        axes_dims_rope=(4, 6, 6),
    )
    kind = FluxFillPipeline if fills else FluxPipeline
    pipeline = kind(
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0 if is_dev else 1.0, use_dynamic_shifting=is_dev
        ),
        vae=vae.eval(),
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(text_2).eval(),
        tokenizer_2=tokenizer_2,
        transformer=transformer.eval(),
    )
    for each in (vae, pipeline.text_encoder, pipeline.text_encoder_2, transformer):
        vary_vectors(each, seed)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder / "model")
    return pipeline
