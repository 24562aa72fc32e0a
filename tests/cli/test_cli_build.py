"""``build`` makes what a later start finds ready."""

import importlib.util
import json
from functools import partial

import command_line
import pytest
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion.engines.nvidia_driver import list_gpus

run = partial(command_line.run, "build")


def test_every_size_is_built_once(tmp_path):
    model = write_tiny_sd(tmp_path / "model")
    file = tmp_path / "pipeline.yaml"
    file.write_text(f"model_path: {model}\ncache_dir: builds\nengine: auto\n")
    words = ("--config", str(file), "--size", "32x32,48x32", "--json")
    first, second = json.loads(run(*words).stdout), json.loads(run(*words).stdout)
    assert [each["size"] for each in first] == ["32 x 32", "48 x 32"]
    # The text encoder knows no size of pictures: the second size finds it in the pipeline.
    cached = [[each["cached"] for each in size["components"]] for size in first]
    assert cached == [[False] * 3, [False] * 3]
    assert [[each["cached"] for each in size["components"]] for size in second] == [[True] * 3] * 2
    text = run("--config", str(file), "--size", "32x32").stdout
    assert text.count("kept build") == 3
    assert "openvino" in text


@pytest.mark.parametrize("size", ["512", "512x", "x512", "a x b", "512x512,"])
def test_a_wrong_size_is_explained(size):
    assert f"--size {size}" in run("--size", size, code=2).stderr


def test_a_size_that_the_model_does_not_draw_is_explained(tmp_path):
    model = write_tiny_sd(tmp_path / "model")
    assert "width is 33" in run("--model", str(model), "--size", "33x32", code=2).stderr


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason='tensorrt_rtx is not installed: pip install "fastdeploy-diffusion[tensorrt-rtx]"',
)
@pytest.mark.skipif(bool(list_gpus()), reason="this machine has an NVIDIA GPU")
@pytest.mark.slow
def test_the_box_model_is_built_for_a_gpu_elsewhere(tmp_path):
    file = tmp_path / "pipeline.yaml"
    file.write_text("preset: shapes\ncache_dir: builds\n")
    words = ("--config", str(file), "--engine", "tensorrt", "--device", "gpu", "--target", "sm86")
    result = run(*words)
    reason = "this machine has no NVIDIA GPU"
    assert result.stdout.count(f"for sm86, not checked: {reason}") == 3
    assert result.stderr.count("is not compared with the Paddle layer") == 3
    plans = list(tmp_path.glob("builds/*/artifact/engine.plan"))
    assert len(plans) == 3
    again = json.loads(run(*words, "--json").stdout)[0]["components"]
    assert [(each["cached"], each["unchecked"]) for each in again] == [(True, reason)] * 3
    # What is there is left alone.
    assert sorted(tmp_path.glob("builds/*/artifact/engine.plan")) == sorted(plans)


def test_a_target_without_a_gpu_component_is_explained():
    assert "no component runs on a GPU" in run("--target", "sm86", code=2).stderr
    wrong = run("--target", "ampere", "--device", "gpu", "--engine", "tensorrt", code=2)
    assert "sm86 for 8.6" in wrong.stderr
