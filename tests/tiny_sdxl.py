"""An SDXL checkpoint with random weights that draws 32 × 32 pixels in about a second; no torch."""

from pathlib import Path
from typing import Any

import pytest

from fastdeploy_diffusion.benchmark.architectures import Architecture
from fastdeploy_diffusion.benchmark.random_checkpoint import write_random_checkpoint
from fastdeploy_diffusion.families.published.sd import SDXL_BASE, SDXL_REFINER_1
from fastdeploy_diffusion.families.sdxl import SDXL, SDXL_REFINER

_TEXT: dict[str, Any] = {
    "vocab_size": 657,  # of the tokenizer in the box
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 20,
}
_SMALL: dict[str, dict[str, Any]] = {
    "text_encoder": {**_TEXT, "hidden_size": 24, "intermediate_size": 48, "projection_dim": 24},
    "text_encoder_2": {**_TEXT, "hidden_size": 32, "intermediate_size": 40, "projection_dim": 28},
    "unet": {
        "addition_time_embed_dim": 8,
        "attention_head_dim": [2, 4, 4],
        "block_out_channels": [16, 32, 32],
        "cross_attention_dim": 24 + 32,
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "projection_class_embeddings_input_dim": 28 + 6 * 8,
        "sample_size": 16,
        "transformer_layers_per_block": [1, 1, 2],
    },
    "vae": {
        "block_out_channels": [16, 32],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "sample_size": 32,
    },
    "scheduler": {},
}


def shrink_sdxl(**more: dict[str, Any]) -> Architecture:
    """The published model in small: the same keys, few layers; ``more`` by component."""
    configs = {
        name: {**SDXL_BASE[name], **small, **more.get(name, {})} for name, small in _SMALL.items()
    }
    return Architecture(SDXL, configs, "F16")


def shrink_refiner(**more: dict[str, Any]) -> Architecture:
    """The published refiner in small, for the latents of the small base model."""
    unet = {
        **_SMALL["unet"],
        "attention_head_dim": [2, 4, 4, 4],
        "block_out_channels": [16, 32, 32, 32],
        "cross_attention_dim": 32,
        "projection_class_embeddings_input_dim": 28 + 5 * 8,
        "transformer_layers_per_block": 1,
    }
    small = {**_SMALL, "unet": unet}
    configs = {
        name: {**published, **small[name], **more.get(name, {})}
        for name, published in SDXL_REFINER_1.items()
    }
    return Architecture(SDXL_REFINER, configs, "F16")


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-sdxl"
    write_random_checkpoint(folder, shrink_sdxl())
    return folder


@pytest.fixture(scope="session")
def tiny_refiner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-refiner"
    write_random_checkpoint(folder, shrink_refiner())
    return folder
