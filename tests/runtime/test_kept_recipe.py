"""What a build says of its weights is enough to bind them: without passes, and without Paddle."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from kept_signature import read_signature
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.checkpoints import open_checkpoint
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.runtime.manifest import MANIFEST_FILE, check_manifest
from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.weights import read_weights

PASSES = ["merge-qkv", "phase-upsample", "winograd-4x4", "hoist-invariants"]

BIND = """
import sys
blocked = ("paddle", "onnx", "onnx_ir", "onnxscript", "paddle2onnx", "onnxruntime", "torch")
sys.modules.update(dict.fromkeys(blocked))
from pathlib import Path
from fastdeploy_diffusion.checkpoints import open_checkpoint
from fastdeploy_diffusion.runtime.manifest import check_manifest
from fastdeploy_diffusion.runtime.weights import read_weights
from fastdeploy_diffusion.runtime.program import Program
from kept_signature import read_signature
model, folder = sys.argv[1], Path(sys.argv[2])
source = open_checkpoint(model).tensors("unet")
program = Program(folder.name, None, *read_signature(folder), tensors=source)
weights = read_weights(program, check_manifest(program, folder))
print(sum(float(abs(array).sum(dtype="float64")) for array in weights.values()))
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A model, and the two programs that its denoiser was built as."""
    folder = tmp_path_factory.mktemp("kept")
    model = write_tiny_sd(folder / "model")
    config = DiffusionConfig(
        model_path=model, cache_dir=folder / "cache", engine="onnxruntime", passes=PASSES
    )
    with SDPipeline(config) as pipeline:
        pipeline.build()
    return model, {
        kind: next((folder / "cache").glob(f"*/artifact/denoiser_{kind}"))
        for kind in ("prologue", "step")
    }


def bind(model, folder):
    source = open_checkpoint(model).tensors("unet")
    program = Program(folder.name, None, *read_signature(folder), tensors=source)
    return read_weights(program, check_manifest(program, folder))


@pytest.mark.parametrize("part", ["prologue", "step"])
def test_weights_are_bound_without_paddle(part, kept):
    model, folders = kept
    command = [sys.executable, "-c", BIND, model, folders[part]]
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(command, capture_output=True, text=True, env=path)
    assert result.returncode == 0, result.stderr
    wanted = sum(np.abs(each).sum(dtype="float64") for each in bind(model, folders[part]).values())
    assert float(result.stdout) == pytest.approx(wanted, rel=1e-12)


def test_a_manifest_says_what_each_weight_is_made_of(kept):
    _, folders = kept
    manifest = json.loads((folders["prologue"] / MANIFEST_FILE).read_text())
    weight = manifest["weights"]["time_projections.weight"]
    assert weight["dtype"] == "float32"
    assert weight["made_of"]["op"] == "concatenate"
    assert all(name.endswith("time_emb_proj.weight") for name in weight["made_of"]["sources"])
    # Under the names of the checkpoint: the prologue's own have no place there.
    assert manifest["weights"]["time_embedding.linear_1.bias"]["made_of"] == (
        "time_embedding.linear_1.bias"
    )


@pytest.mark.parametrize(
    "wrong", [{"dtype": "float32"}, {"made_of": 3, "dtype": "float32"}, "x", {"made_of": "x"}]
)
def test_a_recipe_that_says_nothing_is_refused(wrong, kept, tmp_path):
    _, folders = kept
    folder = tmp_path / folders["step"].name
    folder.mkdir()
    for file in folders["step"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    manifest["weights"]["conv_in.weight"] = wrong
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    program = Program(folder.name, None, *read_signature(folder))
    with pytest.raises(EngineError, match="is no export manifest"):
        check_manifest(program, folder)
