"""The command line on checkpoints of SDXL."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from PIL import Image

from fastdeploy_diffusion import DiffusionConfig, SDXLPipeline
from fastdeploy_diffusion.images import read_settings

QUICK = ("--engine", "paddle-eager")
COMPONENTS = ["text_encoder", "text_encoder_2", "denoiser", "vae_decoder"]
# By the config of the tiny model; its UNet has 11 transformer blocks and as many residual ones, and
# its VAE one attention.
COUNTS = {
    "merge-qkv": [2, 2, 11, 1],
    "merge-kv": [0, 0, 11, 0],
    "phase-upsample": [0, 0, 2, 1],
    "hoist-invariants": [0, 0, 22, 0],
}


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_generate_draws_what_the_library_draws(tiny_sdxl):
    result = run(
        "generate", "a red dog", "--model", tiny_sdxl, *QUICK, "--steps", 2, "--seed", 5,
        "--prompt-2", "a large dog", "--negative-prompt", "blue", "--height", 24,
    )  # fmt: skip
    assert result.stderr == ""
    pipeline = SDXLPipeline(DiffusionConfig(model_path=tiny_sdxl, engine="paddle-eager"))
    expected = pipeline.text_to_image(
        "a red dog", prompt_2="a large dog", negative_prompt="blue", height=24,
        num_inference_steps=2, seed=5,
    )  # fmt: skip
    np.testing.assert_array_equal(np.asarray(Image.open("output.png")), np.asarray(expected))
    assert read_settings("output.png") == read_settings(expected)
    lines = result.stdout.splitlines()
    assert "(sdxl), EulerScheduler, steps 2, guidance scale 5" in lines[1]
    assert [line.split()[0] for line in lines[2:6]] == COMPONENTS


def test_generate_refines(tiny_sdxl, tiny_refiner):
    run(
        "generate", "a red dog", "--model", tiny_sdxl, "--refiner", tiny_refiner, *QUICK,
        "--steps", 4, "--seed", 5, "--denoising-end", 0.5, "--aesthetic-score", 7,
    )  # fmt: skip
    config = DiffusionConfig(model_path=tiny_sdxl, refiner=tiny_refiner, engine="paddle-eager")
    expected = SDXLPipeline(config).text_to_image(**read_settings("output.png"))
    np.testing.assert_array_equal(np.asarray(Image.open("output.png")), np.asarray(expected))
    assert read_settings("output.png")["denoising_end"] == 0.5


@pytest.mark.parametrize("name", ["true-cfg-scale", "max-sequence-length"])
def test_options_of_flux_are_refused(tiny_sdxl, name):
    stderr = run("generate", "x", "--model", tiny_sdxl, f"--{name}", 4, code=2).stderr
    assert f"has no effect on {tiny_sdxl}, a checkpoint of the family sdxl" in stderr
    assert f"allowed: --{name} for a checkpoint of Flux\n" in stderr
    assert not list(Path().iterdir())


def test_build_explain_and_passes(tiny_sdxl):
    words = ("--model", tiny_sdxl, *QUICK, "--json")
    (built,) = json.loads(run("build", *words, "--size", "24x16").stdout)
    assert [each["name"] for each in built["components"]] == COMPONENTS
    assert all(each["relative_error"] <= each["tolerance"] for each in built["components"])
    told = json.loads(run("explain", *words, "--width", 24, "--height", 16).stdout)
    assert [each["engine"] for each in told["components"]] == ["paddle-eager"] * 4
    trials = json.loads(run("passes", *words, "--passes", ",".join(COUNTS)).stdout)
    for name, counts in COUNTS.items():
        rows = [each for each in trials if each["pass"] == name]
        assert [each["component"] for each in rows] == COMPONENTS
        assert [each["matched"] for each in rows] == [each["expected"] for each in rows] == counts
    assert max(each["error"] or 0.0 for each in trials) < 1e-5
    assert not any(each["skipped"] for each in trials)
