"""The last stage of Flux: an ordinary diffusers folder, with weights in half precision."""

from pathlib import Path

from fastdeploy_diffusion.models.autoencoder import AutoencoderKL
from fastdeploy_diffusion.models.flux import FluxTransformer2DModel
from shapes.captions import text_encoder_config
from shapes.flow_sampling import FLOW_SCHEDULER_CONFIG
from shapes.flux_latents import FLUX_VAE_CONFIG, LatentTokens
from shapes.flux_texts import TextEncoders, t5_config
from shapes.folder import write_json, write_weights
from shapes.pieces import write_t5_tokenizer
from shapes.transformer import TRANSFORMER_CONFIG
from shapes.vocabulary import write_tokenizer

_MODEL_INDEX = {
    "_class_name": "FluxPipeline",
    "_diffusers_version": "0.35.0",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_flux_folder(
    folder: Path,
    *,
    vae: AutoencoderKL,
    encoders: TextEncoders,
    transformer: FluxTransformer2DModel,
    codec: LatentTokens,
) -> None:
    """Write a checkpoint that this library and diffusers open alike.

    Args:
        folder: Made if missing; files in it are replaced.
        vae: The trained autoencoder.
        encoders: The trained text encoders.
        transformer: The trained transformer.
        codec: Shift and scale of the latents.
    """
    write_tokenizer(folder / "tokenizer")
    write_t5_tokenizer(folder / "tokenizer_2")
    factors = {"scaling_factor": codec.scaling_factor, "shift_factor": codec.shift_factor}
    for name, config in (
        ("scheduler/scheduler_config", FLOW_SCHEDULER_CONFIG),
        ("vae/config", {**FLUX_VAE_CONFIG, **factors}),
        ("transformer/config", TRANSFORMER_CONFIG),
        ("text_encoder/config", text_encoder_config(folder / "tokenizer")),
        ("text_encoder_2/config", t5_config(encoders.t5_tokenizer)),
        ("model_index", _MODEL_INDEX),
    ):
        write_json(folder / f"{name}.json", config)
    write_weights(vae, folder / "vae" / "diffusion_pytorch_model.safetensors")
    write_weights(transformer, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    write_weights(encoders.clip, folder / "text_encoder" / "model.safetensors", "text_model.")
    write_weights(encoders.t5, folder / "text_encoder_2" / "model.safetensors")
