import re
import sys
import warnings

import pytest

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.placement import (
    FallbackWarning,
    select_engine,
    take_safer_precision,
)
from fastdeploy_diffusion.errors import ConfigError, EngineUnavailableError

CPU, NO_GPU = Device("cpu"), Device("gpu", 99)
UNAVAILABLE = [
    ("cinn", CPU, "fp32", "cinn runs on gpu, not on cpu"),
    ("cinn", NO_GPU, "fp16", "without CINN|no gpu:99"),
    ("tensorrt", NO_GPU, "fp32", "no NVIDIA GPU|no gpu:99"),
    ("tensorrt", CPU, "fp32", "tensorrt runs on gpu, not on cpu"),
    ("openvino", NO_GPU, "fp32", "openvino runs on cpu, not on gpu"),
    ("openvino", CPU, "int4", "openvino runs fp32, fp16, bf16.* on cpu, not int4"),
    ("onnxruntime", CPU, "int4", "onnxruntime runs fp32, fp16, bf16.* on cpu, not int4"),
    ("onnxruntime", NO_GPU, "fp32", "without CUDA|not able|gpu"),
    ("paddle", NO_GPU, "fp32", "CUDA|no gpu:99"),
    ("paddle", Device("xpu", 99), "fp32", "XPU|no xpu:99"),
]


@pytest.mark.parametrize("name", ["paddle", "paddle-eager", "openvino", "onnxruntime"])
@pytest.mark.parametrize("cpu_fallback", [True, False])
def test_what_can_run_is_chosen_in_silence(name, cpu_fallback):
    placement = select_engine(name, CPU, "fp32", cpu_fallback=cpu_fallback, threads=2)
    assert placement.engine.name == name
    assert placement.spec == BuildSpec(CPU, "fp32", 2)
    assert placement.fallback is None


@pytest.mark.parametrize(("name", "device", "precision", "reason"), UNAVAILABLE)
def test_the_fallback_is_loud_and_recorded(name, device, precision, reason):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        placement = select_engine(name, device, precision, cpu_fallback=True, threads=2)
    assert [warning.category for warning in caught] == [FallbackWarning]
    assert caught[0].filename == __file__
    assert placement.engine.name == "openvino"  # the first that auto would take
    assert placement.spec == BuildSpec(CPU, "fp32", 2)
    assert placement.fallback is not None
    assert str(caught[0].message).startswith(placement.fallback)
    assert placement.fallback.startswith(f"{name} on {device} in {precision} cannot run here (")
    assert placement.fallback.endswith("openvino on cpu in fp32 runs instead")
    assert re.search(reason, placement.fallback)


@pytest.mark.parametrize(("name", "device", "precision", "reason"), UNAVAILABLE)
def test_without_the_fallback_it_is_an_error(name, device, precision, reason):
    with pytest.raises(EngineUnavailableError, match=reason) as caught:
        select_engine(name, device, precision, cpu_fallback=False)
    assert "cpu_fallback=True" in caught.value.fix


@pytest.mark.parametrize("cpu_fallback", [True, False])
def test_an_unknown_engine_is_never_replaced(cpu_fallback):
    with pytest.raises(ConfigError, match="unknown engine 'fast'"):
        select_engine("fast", CPU, "fp32", cpu_fallback=cpu_fallback)


def test_auto_takes_the_first_engine_that_can_run(monkeypatch):
    taken = select_engine("auto", CPU, "fp32", cpu_fallback=False)
    assert (taken.engine.name, taken.passed_over) == ("openvino", {})
    monkeypatch.setitem(sys.modules, "openvino", None)
    taken = select_engine("auto", CPU, "fp32", cpu_fallback=False)
    assert taken.engine.name == "onnxruntime"
    assert taken.passed_over.keys() == {"openvino"}
    assert "OpenVINO cannot be imported" in taken.passed_over["openvino"]
    assert taken.installable == {"openvino": 'pip install "fastdeploy-diffusion[openvino]"'}
    assert taken.fallback is None
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    taken = select_engine("auto", CPU, "fp32", cpu_fallback=False)
    assert taken.engine.name == "paddle"
    assert list(taken.installable) == ["openvino", "onnxruntime"]


def test_auto_without_any_engine_falls_back_loudly_or_fails():
    with pytest.warns(FallbackWarning, match=r"auto on gpu:99 in fp16 .*no engine can: .*; .*; "):
        taken = select_engine("auto", NO_GPU, "fp16", cpu_fallback=True)
    assert (taken.engine.name, taken.spec) == ("openvino", BuildSpec(CPU))
    with pytest.raises(EngineUnavailableError, match=r"no engine can: openvino .* int4"):
        select_engine("auto", CPU, "int4", cpu_fallback=False)


def offer(monkeypatch, *precisions):
    """Let OpenVINO's CPU have the instructions of these precisions only."""
    monkeypatch.setattr(
        "fastdeploy_diffusion.engines.openvino.read_capabilities",
        lambda: [{"fp32": "FP32", "fp16": "FP16", "bf16": "BF16"}[each] for each in precisions],
    )


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_auto_gives_up_the_engine_before_the_precision(monkeypatch, precision):
    offer(monkeypatch, "fp32", precision)
    taken = select_engine("auto", CPU, precision, cpu_fallback=True)
    assert (taken.engine.name, taken.spec.precision) == ("openvino", precision)
    offer(monkeypatch, "fp32")
    taken = select_engine("auto", CPU, precision, cpu_fallback=True)
    assert (taken.engine.name, taken.spec.precision) == ("onnxruntime", precision)
    assert taken.fallback is None
    assert taken.passed_over == {"openvino": f"this CPU has no instructions for {precision}"}


@pytest.mark.parametrize("name", ["paddle", "paddle-eager"])
def test_what_an_engine_does_not_compute_in_another_does_if_the_cpu_can(monkeypatch, name):
    # ONNX Runtime would take bf16, and compute in fp32 all the same, only slower.
    for precisions, is_slow, expected in (
        (("fp32", "bf16"), False, "bf16"),
        (("fp32", "bf16"), True, "fp32"),
        (("fp32",), False, "fp32"),
    ):
        offer(monkeypatch, *precisions)
        slow = "fastdeploy_diffusion.engines.openvino.multiplies_bf16_slowly"
        monkeypatch.setattr(slow, lambda is_slow=is_slow: is_slow)
        match = f"not bf16.*; openvino on cpu in {expected} runs instead"
        with pytest.warns(FallbackWarning, match=match):
            taken = select_engine(name, CPU, "bf16", cpu_fallback=True, threads=2)
        assert (taken.engine.name, taken.spec) == ("openvino", BuildSpec(CPU, expected, 2))


def test_a_fallback_says_each_thing_once():
    with pytest.warns(FallbackWarning) as caught:
        select_engine("paddle", CPU, "int4", cpu_fallback=True)
    assert str(caught[0].message) == (
        "paddle on cpu in int4 cannot run here (paddle runs fp32 on cpu, not int4); "
        "openvino on cpu in fp32 runs instead"
    )


def test_nothing_takes_the_place_of_what_cannot_be_built_for_a_target():
    for name in ("paddle", "openvino", "auto"):
        with pytest.raises(EngineUnavailableError, match=r"for sm20 cannot be built here: .*sm20"):
            select_engine(name, Device("gpu"), "fp32", cpu_fallback=True, target="sm20")


def test_nothing_that_is_slower_than_float32_is_safer_than_what_is_not():
    asked = select_engine("onnxruntime", CPU, "int8", cpu_fallback=False, threads=2)
    with pytest.warns(FallbackWarning, match=r"cpu in int8 .* cpu in fp32 runs instead"):
        assert take_safer_precision(asked, "too far").spec == BuildSpec(CPU, "fp32", 2)


def test_the_next_safer_precision_is_bf16_then_fp32():
    asked = select_engine("onnxruntime", CPU, "fp16", cpu_fallback=False, threads=2)
    with pytest.warns(
        FallbackWarning, match=r"cpu in fp16 is not safe \(NaN\); .* cpu in bf16 runs instead"
    ):
        brain = take_safer_precision(asked, "NaN")
    assert brain.spec == BuildSpec(CPU, "bf16", 2)
    with pytest.warns(FallbackWarning, match=r"cpu in bf16 .* cpu in fp32 runs instead"):
        full = take_safer_precision(brain, "too far")
    assert full.spec == BuildSpec(CPU, "fp32", 2)
    # Both reasons are told.
    assert full.fallback.startswith(f"{brain.fallback}. onnxruntime on cpu in bf16")
    assert take_safer_precision(full, "NaN") is None


def test_a_precision_that_the_engine_does_not_have_is_left_out(monkeypatch):
    name = "fastdeploy_diffusion.engines.onnxruntime.ONNXRuntimeEngine.precisions"
    asked = select_engine("onnxruntime", CPU, "fp16", cpu_fallback=False)
    monkeypatch.setattr(name, {"cpu": ("fp32", "fp16")})
    with pytest.warns(FallbackWarning, match="cpu in fp32 runs instead"):
        assert take_safer_precision(asked, "NaN").spec == BuildSpec(CPU)


def test_each_engine_gets_its_own_options_also_where_it_was_chosen():
    options = {name: {"of": name} for name in ("openvino", "onnxruntime", "paddle")}
    for name in ("auto", "paddle", "onnxruntime"):
        placement = select_engine(name, CPU, "fp32", cpu_fallback=False, options=options)
        assert placement.spec.options == {"of": placement.engine.name}
    assert select_engine("paddle-eager", CPU, "fp32", cpu_fallback=False).spec.options == {}
