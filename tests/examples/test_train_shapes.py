"""The training script runs all its stages, goes on where it stopped, and writes a checkpoint."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from fastdeploy_diffusion import DiffusionConfig, SDPipeline

ROOT = Path(__file__).parents[2]


def train(output: Path, unet_steps: int) -> None:
    steps = ["--vae-steps", "1", "--text-steps", "1", "--polish-steps", "1", "--pool", "8"]
    subprocess.run(
        [
            *(sys.executable, ROOT / "examples" / "train_shapes.py", "--output", output),
            *("--workers", "1", "--unet-steps", str(unet_steps), *steps),
        ],
        check=True,
        cwd=ROOT,
        capture_output=True,
    )


def read_step(path: Path) -> int:
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["training"])["step"]


@pytest.mark.slow
def test_training_resumes_and_writes_a_checkpoint(tmp_path):
    train(tmp_path, unet_steps=1)
    first = (tmp_path / "vae.safetensors").read_bytes()
    assert read_step(tmp_path / "unet.safetensors") == 1
    train(tmp_path, unet_steps=2)
    assert read_step(tmp_path / "unet.safetensors") == 2
    # The finished stages were read, not trained again.
    assert (tmp_path / "vae.safetensors").read_bytes() == first
    pipeline = SDPipeline(DiffusionConfig(model_path=tmp_path / "model"))
    assert pipeline.text_to_image("a red star", num_inference_steps=2).size == (128, 128)
