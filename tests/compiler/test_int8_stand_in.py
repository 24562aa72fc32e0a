"""Layers for an engine that cannot be observed here are chosen on the CPU, which says so."""

import importlib.util
import json
import warnings
from pathlib import Path

import pytest
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.cli.quantize import format_quantization, quantize_all
from fastdeploy_diffusion.compiler import int8_choice
from fastdeploy_diffusion.compiler.build import UncheckedWarning
from fastdeploy_diffusion.engines.nvidia_driver import list_gpus
from fastdeploy_diffusion.engines.placement import FallbackWarning
from fastdeploy_diffusion.errors import EngineUnavailableError, RequestError
from fastdeploy_diffusion.runtime.cache import CacheWarning

HERE = {"engine": "paddle", "device": "cpu", "precision": "fp32"}

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_rtx") is None,
        reason='tensorrt_rtx is not installed: pip install "fastdeploy-diffusion[tensorrt-rtx]"',
    ),
    pytest.mark.skipif(bool(list_gpus()), reason="this machine has an NVIDIA GPU"),
]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A denoiser in int8 for a GPU that is elsewhere; the others stay here, in float32."""
    folder = tmp_path_factory.mktemp("stand-in")
    prompts = folder / "prompts.txt"
    prompts.write_text("a red circle\na dog\n猫\na tree\na blue square\n", encoding="utf-8")
    return DiffusionConfig(
        model_path=write_tiny_sd(folder / "sd"),
        engine="tensorrt",
        device="gpu",
        target="sm86",
        tensorrt={"optimization_level": 0},
        precision="int8",
        text_encoder=HERE,
        vae=HERE,
        int8_quality=12.0,
        calibration_prompts=str(prompts),
        cache_dir=str(folder / "cache"),
        defaults={"num_inference_steps": 2, "height": 32, "width": 32},
    )


def build(config):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with SDPipeline(config) as pipeline:
            report = pipeline.build()
            chosen = {
                each.name: getattr(pipeline.component(each.name), "quantization", None)
                for each in report.components
            }
    return report, chosen, [each.category for each in caught]


def test_the_cpu_stands_in_and_its_choice_is_kept(config, monkeypatch):
    report, chosen, caught = build(config)
    _, denoiser, vae = report.components
    assert (denoiser.engine, denoiser.precision, denoiser.target) == ("tensorrt", "int8", "sm86")
    assert (denoiser.fallback, denoiser.int8.stand_in[-7:]) == (None, " on cpu")
    assert denoiser.int8.quality.psnr >= denoiser.int8.target == 12.0
    assert denoiser.int8.metadata["measured_on"] == denoiser.int8.stand_in
    assert (denoiser.unchecked, vae.unchecked) == ("this machine has no NVIDIA GPU", None)
    assert (vae.precision, vae.int8) == ("fp32", None)
    assert UncheckedWarning in caught
    assert CacheWarning not in caught, "no nvidia-smi is asked for a GPU that is elsewhere"
    ranges = chosen["denoiser"].ranges
    assert len(ranges) > len(chosen["denoiser"].skip) > 0
    assert all(each.low == -each.high < 0 for each in ranges.values())
    (line,) = (each for each in format_quantization(report, False).splitlines() if "stands" in each)
    assert line.strip() == (f"measured on {denoiser.int8.stand_in}, which stands in for tensorrt")
    assert json.loads(format_quantization(report, True))["components"][1]["int8"]["stand_in"]

    def fail(*_, **__):
        raise AssertionError("searched again")

    monkeypatch.setattr(int8_choice, "Int8Search", fail)
    again, same, _ = build(config)
    assert same == chosen
    assert [each.cached for each in again.components] == [True] * 3


@pytest.mark.slow
def test_weights_alone_are_judged_on_the_cpu_too(config):
    calibrations = Path(config.cache_dir) / "calibrations"
    before = set(calibrations.glob("*"))
    report, chosen, _ = build(config.model_copy(update={"precision": "int8-weights"}))
    assert len(set(calibrations.glob("*")) - before) <= 1, "the held-out prompts alone"
    denoiser = report.components[1]
    assert (denoiser.engine, denoiser.precision) == ("tensorrt", "int8-weights")
    assert denoiser.int8.quality.psnr >= 12.0
    assert chosen["denoiser"].ranges == {}


@pytest.mark.slow
def test_what_is_refused_on_the_cpu_is_built_in_bf16(config):
    changed = config.model_copy(update={"int8_quality": 80.0})
    for _ in range(2):
        report, _, caught = build(changed)
        denoiser = report.components[1]
        assert (denoiser.engine, denoiser.precision) == ("tensorrt", "bf16")
        assert "80 dB" in denoiser.fallback
        assert FallbackWarning in caught


def test_without_an_engine_on_the_cpu_the_reason_is_said(config, monkeypatch, tmp_path):
    found = "fastdeploy_diffusion.engines.placement.AUTO_ORDER"
    monkeypatch.setattr(found, {"cpu": ("paddle",), "gpu": ("tensorrt",)})
    changed = config.model_copy(update={"cache_dir": str(tmp_path)})
    with (
        SDPipeline(changed) as pipeline,
        pytest.raises(EngineUnavailableError, match="int8 for tensorrt is calibrated on the CPU"),
    ):
        pipeline.quantize()


def test_a_page_of_pictures_is_refused_before_anything_is_calibrated(config, tmp_path):
    changed = config.model_copy(update={"cache_dir": str(tmp_path)})
    with pytest.raises(RequestError, match="built for sm86 and does not run here") as caught:
        quantize_all(changed, tmp_path / "page.html")
    assert caught.value.fix == "leave out --output"
    assert not (tmp_path / "calibrations").exists()
