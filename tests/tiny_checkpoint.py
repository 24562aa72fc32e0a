"""A Stable Diffusion checkpoint with random weights that draws 32 × 32 pixels in about a second."""

import functools
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizer_folders import config_files, train_vocabulary, write_json, write_vocabulary

from fastdeploy_diffusion.families.networks.autoencoder import AutoencoderKLConfig
from fastdeploy_diffusion.families.networks.clip import CLIPTextConfig
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.models.autoencoder import AutoencoderKL
from fastdeploy_diffusion.models.clip import CLIPTextModel
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.paddle_runtime import paddle

WIDTH = 16  # of the text encoder


def write_tiny_sd(folder: Path, *, family: Literal["sd1", "sd2"] = "sd1", seed: int = 0) -> Path:
    """Write a diffusers folder as a download is: model_index.json and five components.

    Args:
        folder: Made if missing.
        family: ``sd1`` (quick GELU, convolutions around transformers, PNDM, noise prediction) or
            ``sd2`` (GELU, linear layers, heads by level, DDIM, v-prediction).
        seed: Of the weights.
    """
    vocabulary, _ = train_vocabulary()
    configs, weights = _make(family, seed)
    for name, config in configs.items():
        (folder / name).mkdir(parents=True)
        file = "scheduler_config.json" if name == "scheduler" else "config.json"
        write_json(folder / name, {file: config})
        if name in weights:
            stem = "model" if name == "text_encoder" else "diffusion_pytorch_model"
            file = folder / name / f"{stem}.safetensors"
            save_file(weights[name], file, metadata={"format": "pt"})
    (folder / "tokenizer").mkdir()
    write_vocabulary(folder / "tokenizer")
    write_json(folder / "tokenizer", config_files(family, vocabulary))
    write_json(folder, {"model_index.json": _index(configs)})
    return folder


@pytest.fixture(scope="session")
def tiny_sd1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_sd(tmp_path_factory.mktemp("checkpoints") / "tiny-sd1")


@functools.cache
def _make(family: str, seed: int) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Configs and weights by component; layers are made only to see which weights they have."""
    vocabulary, _ = train_vocabulary()
    configs = _configure(family, len(vocabulary))
    layers: dict[str, Callable[[], Any]] = {
        "text_encoder": lambda: CLIPTextModel(CLIPTextConfig.from_dict(configs["text_encoder"])),
        "unet": lambda: UNet2DConditionModel(UNet2DConditionConfig.from_dict(configs["unet"])),
        "vae": lambda: AutoencoderKL(AutoencoderKLConfig.from_dict(configs["vae"])),
    }
    random = np.random.default_rng(seed)
    weights = {
        name: _draw_weights(make(), random, "text_model." if name == "text_encoder" else "")
        for name, make in layers.items()
    }
    return configs, weights


def _draw_weights(layer: Any, random: np.random.Generator, prefix: str) -> dict[str, np.ndarray]:
    """Weights in PyTorch's layout, scaled so that no activation vanishes or explodes."""
    linear = {
        f"{name}.weight"
        for name, each in layer.named_sublayers()
        if isinstance(each, paddle.nn.Linear)
    }
    weights = {}
    for name, parameter in layer.state_dict().items():
        shape = tuple(parameter.shape)[::-1] if name in linear else tuple(parameter.shape)
        values = random.standard_normal(shape)
        if name.endswith("bias"):
            values *= 0.1
        elif len(shape) == 1:  # of a normalisation
            values = 1 + 0.1 * values
        elif "embedding.weight" not in name:
            values /= np.sqrt(prod(shape[1:]))
        weights[prefix + name] = values.astype(np.float32)
    return weights


def _configure(family: str, vocabulary: int) -> dict[str, dict[str, Any]]:
    """Configs by component; a scheduler's has its class in it, as the published ones."""
    is_sd2 = family == "sd2"
    return {
        "text_encoder": {
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            "vocab_size": vocabulary,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 77,
            "hidden_act": "gelu" if is_sd2 else "quick_gelu",
            "projection_dim": WIDTH,
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
            "pad_token_id": 0 if is_sd2 else vocabulary - 1,
        },
        "unet": {
            "_class_name": "UNet2DConditionModel",
            "sample_size": 16,
            "block_out_channels": [16, 32],
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "cross_attention_dim": WIDTH,
            "attention_head_dim": [2, 4] if is_sd2 else 4,
            "use_linear_projection": is_sd2,
        },
        "vae": {
            "_class_name": "AutoencoderKL",
            "sample_size": 32,
            "block_out_channels": [16, 32],
            "down_block_types": ["DownEncoderBlock2D"] * 2,
            "up_block_types": ["UpDecoderBlock2D"] * 2,
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "latent_channels": 4,
        },
        "scheduler": {
            "_class_name": "DDIMScheduler" if is_sd2 else "PNDMScheduler",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "clip_sample": False,
            "num_train_timesteps": 1000,
            "prediction_type": "v_prediction" if is_sd2 else "epsilon",
            "set_alpha_to_one": False,
            "skip_prk_steps": True,
            "steps_offset": 1,
        },
    }


def _index(configs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.0",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", configs["scheduler"]["_class_name"]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
