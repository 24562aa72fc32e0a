"""What all engines share: specs, refusals, and errors of one type."""

import sys

import pytest
from engine_programs import CASES
from runnable import CPU_ENGINES

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.registry import create_engine, engine_names
from fastdeploy_diffusion.errors import ConfigError, EngineError, EngineUnavailableError

CPU = BuildSpec(Device("cpu"))


def test_threads_default_to_the_cores_and_must_be_positive():
    assert CPU.cpu_threads >= 1
    assert BuildSpec(Device("cpu"), threads=3).cpu_threads == 3
    for threads in (0, -1):
        with pytest.raises(ConfigError, match=f"threads is {threads}"):
            BuildSpec(Device("cpu"), threads=threads)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, half) for name in ("paddle", "paddle-eager") for half in ("fp16", "bf16")),
        *((name, "int8") for name in CPU_ENGINES),
    ],
)
def test_a_precision_that_an_engine_does_not_have_is_refused(name, precision, tmp_path):
    spec = BuildSpec(Device("cpu"), precision)
    engine = create_engine(name)
    assert precision in engine.supports(spec).reason
    program = CASES["upsampler"].program("upsampler")
    with pytest.raises(EngineUnavailableError, match=precision):
        engine.build(program, spec, tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()
    with pytest.raises(EngineUnavailableError, match=precision):
        engine.load(program, spec, tmp_path)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_paddle_supports_half_precision_on_gpus(precision):
    assert create_engine("paddle").supports(BuildSpec(Device("gpu"), precision)).ok


@pytest.mark.parametrize("name", engine_names())
@pytest.mark.parametrize("device", [Device("gpu", 99), Device("xpu", 99)])
def test_a_missing_device_is_refused_with_the_reason(name, device, tmp_path):
    engine = create_engine(name)
    with pytest.raises(EngineUnavailableError) as caught:
        engine.load(CASES["upsampler"].program("upsampler"), BuildSpec(device), tmp_path)
    available = engine.probe(device)
    assert (caught.value.problem, caught.value.fix) == (available.reason, available.install)


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_a_missing_paddle_is_told_not_raised(name, monkeypatch):
    monkeypatch.delitem(sys.modules, "fastdeploy_diffusion.paddle_runtime")
    monkeypatch.setitem(sys.modules, "paddle", None)
    available = create_engine(name).probe(Device("cpu"))
    assert not available.ok
    assert "Paddle cannot be imported" in available.reason
    assert available.install.startswith("pip install")


def test_loading_what_was_not_built_is_an_engine_error(tmp_path):
    with pytest.raises(EngineError, match=r"upsampler: .*unfinished or damaged"):
        create_engine("paddle").load(CASES["upsampler"].program("upsampler"), CPU, tmp_path)


def test_a_build_that_fails_is_an_engine_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EngineError, match="paddle could not build upsampler"):
        create_engine("paddle").build(
            CASES["upsampler"].program("upsampler"), CPU, tmp_path / "file"
        )
