"""Commands on a model in int8: what one of them has calibrated serves the others."""

import json
from functools import cache

import pytest
from command_line import run
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion.benchmark.result import read_result
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.registry import create_engine

SETTINGS = "defaults: {num_inference_steps: 2, height: 32, width: 32}\n"


@cache
def supports(engine, precision):
    return create_engine(engine).supports(BuildSpec(Device("cpu"), precision)).ok


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    write_tiny_sd(folder / "model")
    (folder / "prompts.txt").write_text("a\nb\nc\nd\ne\n", encoding="utf-8")
    return folder


@pytest.fixture
def write(folder):
    """Write a configuration whose denoiser alone is in int8, on ONNX Runtime."""

    def write_one(name, **options):
        chosen = {
            "model_path": str(folder / "model"),
            "cache_dir": str(folder / "cache"),
            "calibration_prompts": str(folder / "prompts.txt"),
            "int8_quality": 12,
            "engine": "onnxruntime",
            "precision": "int8",
            "passes": [],
            "text_encoder": {"precision": "fp32"},
            "vae": {"precision": "fp32"},
            **options,
        }
        lines = [f"{option}: {json.dumps(value)}\n" for option, value in chosen.items()]
        file = folder / f"{name}.yaml"
        file.write_text("".join(lines) + SETTINGS, encoding="utf-8")
        return file

    return write_one


def test_builds_bundles_and_measurements_share_a_calibration(write, folder):
    config = ("--config", write("shared"))
    (built,) = json.loads(run("build", *config, "--json").stdout)
    denoiser = built["components"][1]
    assert (denoiser["precision"], denoiser["fallback"]) == ("int8", None)
    quality = denoiser["int8"]["quality"]
    assert quality["psnr"] >= 12
    recorded = {file: file.stat().st_mtime_ns for file in folder.glob("cache/calibrations/*/*")}
    bundle = json.loads(run("bundle", "--output", folder / "bundle", *config, "--json").stdout)
    assert bundle["components"]["denoiser"]["int8"]["quality"] == quality
    plans = json.loads(run("tune", *config, "--runs", 1, "--json").stdout)
    seconds = {
        (each["engine"], each["precision"]): each["seconds"] for each in plans[1]["candidates"]
    }
    for engine in ("openvino", "onnxruntime"):
        assert (seconds[engine, "int8"] is not None) == supports(engine, "int8")
    assert {precision for _, precision in seconds} == {"fp32", "fp16", "bf16", "int8"}
    assert {each["precision"] for each in plans[2]["candidates"]} == {"fp32", "fp16", "bf16"}
    explained = run("explain", *config).stdout
    assert f"PSNR {quality['psnr']:.1f} dB" in explained
    kept = {file: file.stat().st_mtime_ns for file in folder.glob("cache/calibrations/*/*")}
    assert kept == recorded, "nothing was calibrated again"


@pytest.mark.slow
def test_after_a_refusal_tuning_does_not_bring_int8_back(write):
    config = ("--config", write("refused", engine="auto", int8_quality=80))
    error = run("tune", *config, "--runs", 1, "--json").stderr
    assert "too much is lost in int8" in error or "is not reached in" in error
    denoiser = json.loads(run("explain", *config, "--json").stdout)["components"][1]
    assert denoiser["precision"] in ("fp32", "bf16")
    assert "80 dB" in denoiser["fallback"]


@pytest.mark.slow
@pytest.mark.serial
def test_int8_is_measured_beside_float32(write, folder):
    config = write("measured", text_encoder={}, vae={})
    words = ("--precision", "fp32,int8", "--runs", 1, "--output", folder / "report")
    run("bench", "--config", config, *words)
    result = read_result(folder / "report")
    assert result.missing == ()
    rows = {row.case.precision: row for row in result.rows}
    assert set(rows) == {"fp32", "int8"}
    assert 12 <= rows["int8"].quality.psnr < rows["fp32"].quality.psnr
    assert {each.precision for each in result.rooflines} <= {"fp32", "int8"}
    assert len(result.rooflines) == 3
