"""What all engines share: specs, refusals, and errors of one type."""

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from engine_programs import CASES, draw_feeds
from runnable import CPU_ENGINES

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec, PayingPasses
from fastdeploy_diffusion.engines.openvino import OpenVINOEngine
from fastdeploy_diffusion.engines.registry import create_engine, engine_names
from fastdeploy_diffusion.errors import ConfigError, EngineError, EngineUnavailableError
from fastdeploy_diffusion.families.registry import FAMILIES
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.registry import PASSES
from fastdeploy_diffusion.runtime.manifest import check_manifest
from fastdeploy_diffusion.runtime.weights import read_weights

CPU = BuildSpec(Device("cpu"))
# Engines that run on CPUs and are not Paddle, and what they run on.
RUNTIMES = {"onnxruntime": "onnxruntime", "openvino": "openvino"}


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
        *((name, "int4") for name in CPU_ENGINES),
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
    available = engine.probe_run(device)
    assert (caught.value.problem, caught.value.fix) == (available.reason, available.install)


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_a_missing_paddle_is_told_not_raised(name, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "fastdeploy_diffusion.paddle_runtime")
    monkeypatch.setitem(sys.modules, "paddle", None)
    engine = create_engine(name)
    available = engine.probe_build(CPU.device)
    assert not available.ok
    assert "Paddle cannot be imported" in available.reason
    assert available.install.startswith("pip install")
    # What runs what was built needs Paddle only where it is Paddle.
    assert engine.probe_run(CPU.device).ok == (name in RUNTIMES)
    with pytest.raises(EngineUnavailableError, match="Paddle cannot be imported") as caught:
        engine.build(CASES["upsampler"].program("upsampler"), CPU, tmp_path / "artifact")
    assert caught.value.fix == available.install


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("package", ["paddle2onnx", "onnx", "onnx_ir", "onnxscript"])
def test_a_missing_converter_keeps_nothing_from_running(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    engine = create_engine(name)
    assert engine.probe_run(CPU.device).ok
    available = engine.probe_build(CPU.device)
    assert available.reason == f"{package}, which the export to ONNX needs, cannot be imported"
    assert available.install == 'pip install "fastdeploy-diffusion[onnx]"'


@pytest.mark.parametrize(("name", "module"), RUNTIMES.items())
def test_a_missing_runtime_is_told_not_raised(name, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    engine = create_engine(name)
    available = engine.probe_run(CPU.device)
    assert not available.ok
    assert "cannot be imported" in available.reason
    assert available.install.startswith("pip install")
    with pytest.raises(EngineUnavailableError, match="cannot be imported"):
        engine.require_build(CPU)


BLOCKED = ("paddle", "paddle2onnx", "onnx", "onnx_ir", "onnxscript")
RUNS_A_BUILD = """
import sys
from pathlib import Path

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocker())
import numpy as np
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.runtime.program import Program
from kept_signature import read_signature

folder = Path({folder!r})
engine, spec = create_engine({name!r}), BuildSpec(Device("cpu"), threads=1)
available = engine.probe_build(spec.device)
assert not available.ok and "Paddle cannot be imported" in available.reason, available
weights = np.load(folder / "weights.npz")

class Stored:
    def read(self, name):
        return weights[name]

    read_stored = read

signature = read_signature(folder / "upsampler")
program = Program("upsampler", None, *signature, tensors=Stored())
with engine.load(program, spec, folder / "upsampler") as session:
    outputs = session.run(**np.load(folder / "feeds.npz"))
np.savez(folder / "outputs.npz", **outputs)
"""


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("is_kept", [False, True])
def test_a_build_runs_where_nothing_can_be_built(name, is_kept, tmp_path):
    case, engine = CASES["upsampler"], create_engine(name)
    spec = BuildSpec(CPU.device, threads=1, notes=tmp_path if is_kept else None)
    program, feeds = case.program("upsampler"), draw_feeds(case, 0)
    engine.build(program, spec, tmp_path / "upsampler")
    with engine.load(program, spec, tmp_path / "upsampler") as session:
        wanted = session.run(**feeds)
    types = check_manifest(program, tmp_path / "upsampler")
    np.savez(tmp_path / "weights.npz", **read_weights(program, types))
    np.savez(tmp_path / "feeds.npz", **feeds)
    code = RUNS_A_BUILD.format(blocked=BLOCKED, folder=str(tmp_path), name=name)
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    child = subprocess.run(command, capture_output=True, text=True, env=path)
    assert child.returncode == 0, child.stderr
    given = np.load(tmp_path / "outputs.npz")
    for output, array in wanted.items():
        np.testing.assert_array_equal(given[output], array)


def test_loading_what_was_not_built_is_an_engine_error(tmp_path):
    with pytest.raises(EngineError, match=r"upsampler: .*unfinished or damaged"):
        create_engine("paddle").load(CASES["upsampler"].program("upsampler"), CPU, tmp_path)


def test_a_build_that_fails_is_an_engine_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EngineError, match="paddle could not build upsampler"):
        create_engine("paddle").build(
            CASES["upsampler"].program("upsampler"), CPU, tmp_path / "file"
        )


@pytest.mark.parametrize("name", engine_names())
def test_passes_that_pay_are_named_in_precisions_that_the_engine_has(name):
    engine = create_engine(name)
    for each in engine.paying_passes:
        assert {*each.names, *each.close} <= set(PASSES)
        assert each.precision in {kind for kinds in engine.precisions.values() for kind in kinds}


@pytest.mark.parametrize(
    ("machine", "flags", "device", "precision", "is_portable", "bits"),
    [
        ("x86_64", ["avx2", "fma"], "cpu", "int8", False, 7),
        ("x86_64", ["avx512f", "avx512bw"], "cpu", "int8", False, 7),
        ("x86_64", ["avx2", "avx_vnni"], "cpu", "int8", False, 8),
        ("x86_64", ["avx512f", "avx512_vnni"], "cpu", "int8", False, 8),
        ("x86_64", ["avx512_vnni"], "cpu", "int8", True, 7),
        ("AMD64", [], "cpu", "int8", False, 7),
        ("aarch64", ["asimd"], "cpu", "int8", False, 8),
        ("x86_64", ["avx2"], "cpu", "int8-weights", False, 8),
        ("x86_64", ["avx2"], "gpu", "int8", False, 8),
    ],
)
def test_weights_have_the_bits_whose_products_are_right(
    machine, flags, device, precision, is_portable, bits, monkeypatch
):
    monkeypatch.setattr("fastdeploy_diffusion.machine.read_cpu_flags", lambda: flags)
    monkeypatch.setattr("platform.machine", lambda: machine)
    spec = BuildSpec(Device(device), precision, portable_int8=is_portable)
    assert spec.weight_bits == bits


@pytest.mark.parametrize("name", engine_names())
def test_passes_that_pay_are_of_roles_that_networks_have_and_found(name, monkeypatch):
    engine = create_engine(name)
    roles = {kind.role for family in FAMILIES.values() for kind in family.networks.values()}
    for each in engine.paying_passes:
        assert each.role in ("", *roles)
        # Layers in int8 are chosen at one size for all.
        assert not (each.pixels and PRECISIONS[each.precision].is_quantized)
        flags = partial(tuple, [each.instructions])
        monkeypatch.setattr("fastdeploy_diffusion.engines.base.read_cpu_flags", flags)
        slow = partial(bool, each.where_slow)
        monkeypatch.setattr("fastdeploy_diffusion.engines.base.multiplies_bf16_slowly", slow)
        # None is hidden by one before it.
        chosen = engine.name_default_passes(each.precision, each.role, each.pixels)
        assert chosen == each.names


def test_the_passes_that_pay_depend_on_the_network_and_the_size():
    class Chosen(OpenVINOEngine):
        paying_passes = (
            PayingPasses("fp32", ("winograd-4x4",), role="vae", pixels=64, close=("merge-qkv",)),
            PayingPasses("fp32", ("phase-upsample",), role="vae"),
            PayingPasses("fp32", ("hoist-invariants",), pixels=32),
        )

    name = Chosen().name_default_passes
    assert name("fp32", "vae", 64) == ("winograd-4x4",)
    assert name("fp32", "vae", 64, close=True) == ("winograd-4x4", "merge-qkv")
    assert name("fp32", "vae", 63) == name("fp32", "vae") == ("phase-upsample",)
    assert name("fp32", "denoiser", 63) == name("fp32", "", 32) == ("hoist-invariants",)
    assert name("fp32", "denoiser", 31) == name("fp32", "text_encoder") == ()


def test_the_passes_that_pay_depend_on_precision_and_instructions(monkeypatch):
    class Chosen(OpenVINOEngine):
        paying_passes = (
            PayingPasses("bf16", ("merge-qkv", "split-geglu"), instructions="amx_bf16"),
            PayingPasses("bf16", ("merge-qkv",), close=("merge-kv",)),
        )

    flags = ["avx512f", "avx512_bf16"]
    monkeypatch.setattr("fastdeploy_diffusion.engines.base.read_cpu_flags", lambda: flags)
    assert Chosen().name_default_passes("bf16") == ("merge-qkv",)
    assert Chosen().name_default_passes("bf16", close=True) == ("merge-qkv", "merge-kv")
    assert Chosen().name_default_passes("fp32", close=True) == ()
    flags.append("amx_bf16")
    assert Chosen().name_default_passes("bf16") == ("merge-qkv", "split-geglu")
