"""Flux checkpoints with random weights that draw 16 × 16 pixels in about a second; no torch."""

from pathlib import Path
from typing import Any

import pytest

from fastdeploy_diffusion.benchmark.architectures import Architecture
from fastdeploy_diffusion.benchmark.random_checkpoint import write_random_checkpoint
from fastdeploy_diffusion.families.flux import FLUX
from fastdeploy_diffusion.families.published.flux import FLUX_DEV, FLUX_SCHNELL

_SMALL: dict[str, dict[str, Any]] = {
    "text_encoder": {
        "vocab_size": 657,  # of the tokenizer in the box
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 20,
        "bos_token_id": 655,
        "eos_token_id": 656,
        "pad_token_id": 656,
        "projection_dim": 24,
    },
    "text_encoder_2": {
        "vocab_size": 98,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 40,
        "num_layers": 2,
        "num_heads": 4,
    },
    "transformer": {
        "in_channels": 16,
        "num_layers": 1,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 24,
        "axes_dims_rope": [4, 6, 6],
    },
    "vae": {
        "block_out_channels": [16, 32],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "norm_num_groups": 8,
        "latent_channels": 4,
    },
    "scheduler": {},
}


def shrink(published: Any, **more: dict[str, Any]) -> Architecture:
    """A published model in small: the same keys, few layers; ``more`` by component."""
    configs = {
        name: {**published[name], **small, **more.get(name, {})} for name, small in _SMALL.items()
    }
    return Architecture(FLUX, configs, "BF16")


@pytest.fixture(scope="session")
def tiny_dev(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-dev"
    write_random_checkpoint(folder, shrink(FLUX_DEV))
    return folder


@pytest.fixture(scope="session")
def tiny_schnell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-schnell"
    write_random_checkpoint(folder, shrink(FLUX_SCHNELL))
    return folder
