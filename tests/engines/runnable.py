"""Where the tests run each engine, and what an engine is excused from, with the reasons."""

from collections.abc import Mapping

import pytest

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.registry import create_engine, engine_names

# Engines that do not run on CPUs; their tests run where there is the device.
DEVICES: Mapping[str, Device] = {"cinn": Device("gpu"), "tensorrt": Device("gpu")}

CPU_ENGINES = tuple(name for name in engine_names() if name not in DEVICES)

EXCUSED: Mapping[tuple[str, str], str] = {
    ("tensorrt", "free dimensions"): "a plan has one profile, in which only the batch is free",
    ("tensorrt", "many outputs"): "TensorRT has no ArgMax of a vector; no component has one",
}


def spec_for(engine: str, threads: int | None = None) -> BuildSpec:
    """What the tests build for on an engine."""
    return BuildSpec(DEVICES.get(engine, Device("cpu")), threads=threads)


def runnable(names: tuple[str, ...] = engine_names()) -> list[object]:
    """The engines as parameters of tests, skipped with the reason where they cannot run."""
    return [pytest.param(name, marks=_skip_where_missing(name), id=name) for name in names]


def skip_excused(engine: str, case: str) -> None:
    """Skip a test that an engine is excused from."""
    if reason := EXCUSED.get((engine, case)):
        pytest.skip(f"{engine}: {reason}")


def _skip_where_missing(name: str) -> tuple[pytest.MarkDecorator, ...]:
    if name not in DEVICES:
        return ()
    available = create_engine(name).probe_run(DEVICES[name])
    return (pytest.mark.skipif(not available.ok, reason=f"{name}: {available.reason}"),)
