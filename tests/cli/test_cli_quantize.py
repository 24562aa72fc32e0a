"""``quantize`` prints what int8 costs, and writes a page with pictures."""

import json
import re
from functools import partial

import command_line
import pytest
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.registry import create_engine

run = partial(command_line.run, "quantize")
_SUPPORT = create_engine("openvino").supports(BuildSpec(Device("cpu"), "int8"))
needs_int8 = pytest.mark.skipif(not _SUPPORT.ok, reason=_SUPPORT.reason)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantize")
    model = write_tiny_sd(folder / "model")
    (folder / "prompts.txt").write_text("a\nb\nc\nd\ne\n", encoding="utf-8")
    (folder / "pipeline.yaml").write_text(
        f"model_path: {model}\ncache_dir: cache\nengine: openvino\n"
        "calibration_prompts: prompts.txt\n"
        "defaults: {num_inference_steps: 2, height: 32, width: 32}\n"
    )
    return folder


@needs_int8
def test_it_prints_what_each_block_runs_in_and_writes_a_page(folder):
    page = folder / "page.html"
    words = ("--config", folder / "pipeline.yaml", "--quality", 12)
    text = run(*words, "--output", page).stdout
    assert re.search(r"PSNR [\d.]+ dB \(worst [\d.]+\), SSIM", text)
    assert re.search(r"down_blocks\.0\.resnets\.0 +2 +not measured +int8", text)
    html = page.read_text(encoding="utf-8")
    assert html.count('src="data:image/png;base64,') == 2  # of one held-out prompt
    assert "down_blocks.0.resnets.0" in html
    assert "http" not in html
    report = json.loads(run(*words, "--json").stdout)
    assert report["components"][1]["int8"]["quality"]["pictures"] == 1
    explained = command_line.run(
        "explain", "--config", folder / "pipeline.yaml", "--precision", "int8"
    ).stdout
    assert "layers in int8" in explained


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--output", "page.png"), "ends in .html"),
        (("--precision", "bf16"), "nothing is in int8"),
        (("--quality", "5"), "int8_quality"),
        (("--prompts", "missing.txt"), "cannot be read"),
    ],
)
def test_wrong_uses_are_explained(folder, words, problem):
    assert problem in run("--config", folder / "pipeline.yaml", *words, code=2).stderr


def test_an_existing_page_is_left_alone(folder):
    page = folder / "kept.html"
    page.write_text("mine")
    words = ("--config", folder / "pipeline.yaml", "--output", page)
    assert "exists already" in run(*words, code=2).stderr
    assert page.read_text() == "mine"
