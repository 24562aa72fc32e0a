"""``bench``: what it refuses, and one whole run."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import command_line
import pytest

from fastdeploy_diffusion.benchmark import needs, random_checkpoint
from fastdeploy_diffusion.benchmark.result import read_result

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "benchmark" / "recorded.json"

run = partial(command_line.run, "bench")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precision", "fp31"], "did you mean 'fp32'"),
        (["--peer-precision", "int8-hybird"], "did you mean 'int8-hybrid'"),
        (["--batch", "1,0"], "whole numbers of 1 or more"),
        (["--size", "512"], "WIDTHxHEIGHT"),
        (["--peers", "nobody"], "there is no adapter for it"),
        (["--config", "shapes", "--model", "x"], "--config FILE.yaml with --model"),
        (["--model", "no/such"], "no/such does not exist"),
        (["--model", "shapes", "--random-weights", "sd15"], "one of both"),
        (["--random-weights", "sd-15"], "did you mean 'sd15'"),
        (["--size", "100x128"], "width is 100"),
        (["--sweep", "step"], "did you mean 'steps'"),
        (["--sweep", "steps", "--batch", "1,2"], "only what is swept changes"),
        (["--engine", "openvin"], "did you mean 'openvino'"),
    ],
)
def test_wrong_options_are_explained(tmp_path, words, message):
    assert message in run(*words, "--output", tmp_path / "new", code=2).stderr


def test_a_missing_engine_is_explained(tmp_path):
    words = ("--engine", "tensorrt", "--output", tmp_path / "new")
    assert "--engine tensorrt: " in run(*words, code=1).stderr


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "notes").write_text("mine")
    assert "holds something already" in run("--output", tmp_path, code=2).stderr
    assert "cannot be made" in run("--output", tmp_path / "notes", code=2).stderr


def test_a_model_that_does_not_fit_is_refused_before_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(random_checkpoint, "default_cache_folder", lambda: tmp_path / "cache")
    found = {"memory": {"total": 2**34, "available": 2**33}}
    monkeypatch.setattr(needs, "describe_machine", lambda: found)
    words = ("--random-weights", "flux-schnell", "--output", tmp_path / "new")
    stderr = run(*words, code=1).stderr
    assert "error: --random-weights flux-schnell has 16.9 billion parameters" in stderr
    assert "62.8 GiB of memory, and 8.0 GiB of 16.0 GiB are available" in stderr
    assert "fix: take one that fits: sd15, sd21" in stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_whole_run_of_flux(tmp_path, tiny_schnell):
    file, folder = tmp_path / "c.yaml", tmp_path / "report"
    settings = "defaults: {height: 16, width: 24, max_sequence_length: 8}"
    file.write_text(f"model_path: {tiny_schnell}\n{settings}\n")
    words = ("--config", file, "--engine", "paddle-eager", "--runs", 1)
    run(*words, "--output", folder)
    result = read_result(folder)
    assert result.missing == ()
    (row,) = result.rows
    assert str(row.case).startswith("paddle-eager fp32, 24 x 16, 4 steps")
    assert row.case.work.guidance_scale is None
    assert row.quality.psnr is None  # the reference itself
    components = ["text_encoder", "text_encoder_2", "denoiser", "vae_decoder"]
    assert list(row.quality.relative_errors) == components
    assert max(row.quality.relative_errors.values()) < 1e-4
    assert len(row.samples.stages["step"]) == 4
    assert {each.component for each in result.rooflines} == set(components)
    assert "tiny-schnell" in (folder / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_one_that_is_told_to_end_writes_what_there_is(tmp_path, how):
    folder = tmp_path / "report"
    code = (
        # A test run in the background is started with this signal ignored, and so is its child.
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from fastdeploy_diffusion.cli import main; main()"
    )
    words = (
        "bench",
        "--engine",
        "paddle-eager",
        "--steps",
        "900",
        "--threads",
        "1",
        "--output",
        str(folder),
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    while not folder.exists():  # it is made when the options are checked, before the first case
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(how)
    printed, _ = process.communicate()
    assert process.returncode == 130
    assert "paddle-eager fp32, 128 x 128, 900 steps, 1 thread: interrupted" in printed
    result = read_result(folder)
    assert result.is_interrupted
    assert result.rows == ()


@pytest.mark.slow
@pytest.mark.serial
def test_a_whole_run(tmp_path):
    folder = tmp_path / "report"
    words = ("--engine", "paddle", "--steps", 2, "--runs", 2, "--output", folder)
    printed = run(*words).stdout
    assert "paddle fp32" in printed
    assert str(folder / "report.html") in printed
    (row,) = read_result(folder).rows
    samples = row.samples
    assert len(samples.pictures) == 2
    assert len(samples.stages["step"]) == 4
    for name in ("text_encoder", "prologue", "vae_decoder", "post_processing"):
        assert len(samples.stages[name]) == 2
    whole = [sum(samples.stage_per_picture(name)[run] for name in samples.stages) for run in (0, 1)]
    shares = [each / picture for each, picture in zip(whole, samples.pictures, strict=True)]
    # Other programs may take the processor between two stages, but hardly in every picture.
    assert 0.5 < max(shares) <= 1
    assert samples.load_cold_seconds > 0
    assert samples.load_warm_seconds > 0
    assert row.quality.psnr is None or row.quality.psnr > 60
    assert set(row.quality.relative_errors) == {"text_encoder", "denoiser", "vae_decoder"}
    assert max(row.quality.relative_errors.values()) < 1e-3
    assert row.quality.judgement.right >= 6
    rooflines = read_result(folder).rooflines
    assert [each.component for each in rooflines] == ["text_encoder", "denoiser", "vae_decoder"]
    # The same model was recorded; what it computes and moves depends on no machine.
    for found, recorded in zip(rooflines, read_result(RECORDED).rooflines, strict=True):
        assert (found.plain_flops, found.flops, found.moved_bytes) == (
            *(recorded.plain_flops, recorded.flops, recorded.moved_bytes),
        )
    # Peaks and components are timed one after the other, and other programs may take the processor
    # in either; a unit that is wrong is so by a thousand.
    assert all(1e-4 < each.share < 30 for each in rooflines)
    assert "of the limit" in printed
    components = row.settings["components"]
    assert all(len(each["artifact"]) == 64 for each in components)
    assert {path.name for path in folder.iterdir()} == {
        "report.html", "report.md", "result.json", "samples.csv",
    }  # fmt: skip
    assert run("show", folder).stdout.splitlines()[:4] == printed.splitlines()[:4]
    assert json.loads((folder / "result.json").read_text())["schema_version"] == 1
