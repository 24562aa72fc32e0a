"""The last stage: an ordinary diffusers folder, with weights in half precision."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn
from safetensors.numpy import save_file

from shapes.denoising import SCHEDULER_CONFIG, UNET_CONFIG
from shapes.pictures import VAE_CONFIG
from shapes.vocabulary import write_tokenizer

_MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.35.0",
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_folder(
    folder: Path,
    *,
    vae: nn.Layer,
    text_encoder: nn.Layer,
    unet: nn.Layer,
    text_config: dict[str, Any],
    scaling_factor: float,
) -> None:
    """Write a checkpoint that this library and diffusers open alike.

    Args:
        folder: Made if missing; files in it are replaced.
        vae: The trained autoencoder.
        text_encoder: The trained text encoder.
        unet: The trained UNet.
        text_config: ``config.json`` of the text encoder.
        scaling_factor: What brings the latents to unit variance.
    """
    write_tokenizer(folder / "tokenizer")
    write_json(folder / "model_index.json", _MODEL_INDEX)
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER_CONFIG)
    write_json(folder / "vae" / "config.json", {**VAE_CONFIG, "scaling_factor": scaling_factor})
    write_json(folder / "unet" / "config.json", UNET_CONFIG)
    write_json(folder / "text_encoder" / "config.json", text_config)
    write_weights(vae, folder / "vae" / "diffusion_pytorch_model.safetensors")
    write_weights(unet, folder / "unet" / "diffusion_pytorch_model.safetensors")
    write_weights(text_encoder, folder / "text_encoder" / "model.safetensors", "text_model.")


def write_weights(layer: nn.Layer, path: Path, prefix: str = "") -> None:
    """Write a layer as PyTorch keeps it, in half precision, its names behind ``prefix``."""
    linear = {
        f"{name}.weight" for name, part in layer.named_sublayers() if isinstance(part, nn.Linear)
    }
    weights = {}
    for name, parameter in layer.state_dict().items():
        # Paddle's Linear holds [in, out], a checkpoint [out, in].
        weight = parameter.numpy().T if name in linear else parameter.numpy()
        weights[prefix + name] = np.ascontiguousarray(weight, np.float16)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path, metadata={"format": "pt"})


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a config; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
