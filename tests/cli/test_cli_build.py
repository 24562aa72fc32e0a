"""``build`` makes what a later start finds ready."""

import json

import pytest
from tiny_checkpoint import write_tiny_sd
from typer.testing import CliRunner

from fastdeploy_diffusion.cli import app


def run(*words, code=0):
    result = CliRunner().invoke(app, ["build", *words])
    assert result.exit_code == code, (result.stdout, result.stderr)
    return result


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
    assert text.count("from the cache") == 3
    assert "openvino" in text


@pytest.mark.parametrize("size", ["512", "512x", "x512", "a x b", "512x512,"])
def test_a_wrong_size_is_explained(size):
    assert f"--size {size}" in run("--size", size, code=2).stderr


def test_a_size_that_the_model_does_not_draw_is_explained(tmp_path):
    model = write_tiny_sd(tmp_path / "model")
    assert "width is 33" in run("--model", str(model), "--size", "33x32", code=2).stderr
