"""Small models with random weights in the place of those in the box, under the presets' names.

They draw in two steps, and are calibrated on five prompts: what they draw is noise after any
number of steps.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from tiny_flux import shrink

from fastdeploy_diffusion.benchmark.architectures import Architecture
from fastdeploy_diffusion.benchmark.random_checkpoint import write_random_checkpoint
from fastdeploy_diffusion.config import layers
from fastdeploy_diffusion.families.published.flux import FLUX_DEV
from fastdeploy_diffusion.families.published.sd import SD_1_5
from fastdeploy_diffusion.families.sd import SD1

# Latents are an eighth as wide as a picture, as those of the models in the box.
_VAE: dict[str, Any] = {
    "block_out_channels": [4] * 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "norm_num_groups": 2,
}
_SD1: dict[str, dict[str, Any]] = {
    "text_encoder": {
        "vocab_size": 657,  # of the tokenizer in the box
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 20,
    },
    "unet": {
        "block_out_channels": [16, 32],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "cross_attention_dim": 24,
        "sample_size": 16,
        "attention_head_dim": 4,
    },
    "vae": {**_VAE, "sample_size": 128},
    "scheduler": {},
}


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of presets with small models: ``shapes.yaml``, ``shapes``, …"""
    folder = tmp_path_factory.mktemp("presets")
    configs = {name: {**SD_1_5[name], **small} for name, small in _SD1.items()}
    write_random_checkpoint(folder / "shapes", Architecture(SD1, configs, "F16"))
    write_random_checkpoint(folder / "flux-shapes", shrink(FLUX_DEV, vae=_VAE))
    for name, file in layers.find_presets().items():
        preset = file.read_text(encoding="utf-8")
        preset = re.sub(r"(?<=num_inference_steps: )\d+", "2", preset)
        (folder / f"{name}.yaml").write_text(preset, encoding="utf-8")
        for text in file.parent.glob("*.txt"):  # the prompts that a preset names
            prompts = text.read_text(encoding="utf-8").splitlines(keepends=True)
            (folder / text.name).write_text("".join(prompts[:5]), encoding="utf-8")
    return folder


@pytest.fixture
def small_presets(small_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The presets' names mean the small models."""
    presets = {file.stem: file for file in sorted(small_models.glob("*.yaml"))}
    monkeypatch.setattr(layers, "find_presets", lambda: presets)
    return small_models
