"""What ``memory="staged"`` is worth, as the system counts it, on random weights."""

import json
import subprocess
import sys

import pytest

from fastdeploy_diffusion.benchmark.architectures import Architecture
from fastdeploy_diffusion.benchmark.random_checkpoint import write_random_checkpoint
from fastdeploy_diffusion.families.published.sd import SD_1_5
from fastdeploy_diffusion.families.sd import SD1
from fastdeploy_diffusion.runtime.cache import ArtifactCache

CONFIGS = {
    **SD_1_5,
    "text_encoder": {
        **SD_1_5["text_encoder"],
        "vocab_size": 657,  # that of the tokenizer in the box
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "num_hidden_layers": 10,
    },
    "unet": {
        **SD_1_5["unet"],
        "sample_size": 16,
        "block_out_channels": [192, 384],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "cross_attention_dim": 512,
    },
    "vae": {
        **SD_1_5["vae"],
        "block_out_channels": [128, 384],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
    },
}

DRAW = """
import hashlib, json, sys
from pathlib import Path
from fastdeploy_diffusion import DiffusionConfig, SDPipeline

def read_peak():  # of this program; what started it counts in ru_maxrss, too
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

folder, cache, memory = sys.argv[1:]
options = {"cache_dir": cache, "memory": memory, "engine": "paddle"}
pipeline = SDPipeline(DiffusionConfig(model_path=folder, **options))
picture = pipeline.text_to_image("a red circle", seed=1, num_inference_steps=2)
print(json.dumps({
    "peak": read_peak(),
    "cached": [each.cached for each in pipeline.report.components],
    "picture": hashlib.sha256(picture.tobytes()).hexdigest(),
}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    write_random_checkpoint(folder, Architecture(SD1, CONFIGS, "F16"))
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux counts it")
def test_staged_takes_less_by_what_is_not_loaded(folder, tmp_path):
    built, resident, staged = (
        draw(folder, tmp_path, memory) for memory in ("staged", "resident", "staged")
    )
    assert resident["picture"] == staged["picture"] == built["picture"]
    assert all(resident["cached"] + staged["cached"])
    # Paddle's builds hold the weights.
    sizes = [entry.size for entry in ArtifactCache(tmp_path, limit=2**40).entries()]
    others = sum(sizes) - max(sizes)
    assert others > 150e6
    # And what an engine holds besides weights, of the other components as well.
    assert resident["peak"] - staged["peak"] >= 0.9 * others


def draw(folder, cache, memory):
    command = [sys.executable, "-c", DRAW, str(folder), str(cache), memory]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])
