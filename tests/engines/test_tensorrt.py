"""Plans are really built, for named GPUs, without one; running them takes a GPU."""

import importlib.util
import sys
from dataclasses import replace

import numpy as np
import pytest
from component_programs import COMPONENTS
from engine_programs import CASES

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.nvidia_driver import list_gpus
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.engines.tensorrt import PLAN_FILE
from fastdeploy_diffusion.engines.tensorrt_session import BATCH
from fastdeploy_diffusion.errors import EngineError, EngineUnavailableError
from fastdeploy_diffusion.families.networks.clip import CLIPTextConfig
from fastdeploy_diffusion.families.published.sd import SD_1_5
from fastdeploy_diffusion.models.clip import CLIPTextModel
from fastdeploy_diffusion.models.components import TextConditioner
from fastdeploy_diffusion.paddle_runtime import paddle
from fastdeploy_diffusion.passes.graph_pass import GraphPass
from fastdeploy_diffusion.passes.registry import make_all_passes
from fastdeploy_diffusion.runtime.manifest import check_manifest, read_graph_passes
from fastdeploy_diffusion.runtime.program import Program, TensorSpec
from fastdeploy_diffusion.runtime.recipe import Weight
from fastdeploy_diffusion.runtime.weights import read_weights

GPU = Device("gpu")
# What level 0 builds is parsed, bounded and weighed like the rest; only kernels are not looked for.
QUICK = {"optimization_level": 0}
SM86 = BuildSpec(GPU, target="sm86", options=QUICK)

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason='tensorrt_rtx is not installed: pip install "fastdeploy-diffusion[tensorrt-rtx]"',
)
without_gpu = pytest.mark.skipif(bool(list_gpus()), reason="this machine has an NVIDIA GPU")


@pytest.fixture
def engine():
    return create_engine("tensorrt")


def build(engine, program, folder, spec=SM86):
    """Build, and give the plan's bytes."""
    engine.build(program, spec, folder)
    assert check_manifest(program, folder) == {}  # nothing is asked of the checkpoint on load
    assert sorted(file.name for file in folder.iterdir()) == [PLAN_FILE, "manifest.json"]
    return (folder / PLAN_FILE).read_bytes()


def assert_holds(plan, program):
    """The weights are in the plan: those that TensorRT has no reason to rearrange, to the bit."""
    weights = read_weights(
        program, {name: Weight(name) for name, _ in program.layer.named_parameters()}
    )
    assert len(plan) > sum(array.nbytes for array in weights.values())
    plain = {name: array for name, array in weights.items() if array.ndim == 1 and array.any()}
    assert len(plain) > 3
    # A scale of ones and a bias of zeros, as new layers have them, would be anywhere.
    missing = [name for name, array in plain.items() if array.tobytes() not in plan]
    assert missing == []


def vary(program):
    """Give the vectors of a layer values that are not found by luck."""
    random = np.random.default_rng(11)
    for parameter in program.layer.parameters():
        if len(parameter.shape) == 1:
            values = 1 + 0.1 * random.standard_normal(parameter.shape)
            parameter.set_value(values.astype("float32"))
    return program


@needs_rtx
@pytest.mark.parametrize("name", ["sd1 text encoder", "vae decoder"])
def test_a_component_is_built_for_a_target(engine, name, tmp_path):
    program = vary(COMPONENTS[name].program(name.replace(" ", "_")))
    spec = replace(SM86, options={})  # as users build who ask for nothing
    assert_holds(build(engine, program, tmp_path, spec), program)


@needs_rtx
@pytest.mark.parametrize(("precision", "dtype"), [("fp16", "float16"), ("bf16", "bfloat16")])
def test_a_component_is_built_in_half_precision(engine, precision, dtype, tmp_path):
    program = vary(COMPONENTS["sd1 text encoder"].program("text_encoder"))
    plan = build(engine, program, tmp_path, replace(SM86, precision=precision))
    vectors = [name for name, each in program.layer.named_parameters() if len(each.shape) == 1]
    # The norms' stay as they are; biases are in the plan in half precision, and not otherwise.
    for name in vectors:
        is_kept = "norm" in name
        for kind, is_held in (("float32", is_kept), (dtype, not is_kept)):
            held = read_weights(program, {name: Weight(name, kind)})[name].tobytes() in plan
            assert held == is_held, (name, kind)


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("sd1 unet", "fp16"),
        ("sdxl unet", "bf16"),
        ("vae decoder", "fp16"),
        ("vae decoder", "bf16"),
    ],
)
def test_every_kind_of_component_is_built_in_half_precision(engine, name, precision, tmp_path):
    program = COMPONENTS[name].program(name.replace(" ", "_"))
    build(engine, program, tmp_path, replace(SM86, precision=precision))


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd2 unet", "sd1 text encoder", "vae decoder"])
def test_what_graph_passes_make_is_built(engine, name, tmp_path):
    known = (each for each in make_all_passes() if isinstance(each, GraphPass))
    passes = tuple(each for each in known if not each.is_native)
    case = COMPONENTS[name]
    program = replace(case.program(name.replace(" ", "_")), graph_passes=passes)
    weights = read_weights(
        program, {name: Weight(name) for name, _ in program.layer.named_parameters()}
    )
    # Not all to the bit: the scale of an attention goes into the biases of its queries and keys.
    assert len(build(engine, program, tmp_path)) > sum(each.nbytes for each in weights.values())
    for each, result in zip(passes, read_graph_passes(program, tmp_path), strict=True):
        assert each.expect(program.layer) in (None, result.count)


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("sd1 unet", "sm120"),
        ("sd2 unet", "sm86"),
        ("sdxl unet", "sm86"),
        ("sdxl text encoder", "sm120"),
    ],
)
def test_every_component_is_built_for_a_target(engine, name, target, tmp_path):
    program = vary(COMPONENTS[name].program(name.replace(" ", "_")))
    plan = build(engine, program, tmp_path, replace(SM86, target=target))
    assert len(plan) > sum(each.size * 4 for each in program.layer.parameters())


@needs_rtx
@pytest.mark.slow
def test_the_text_encoder_of_sd15_is_built_in_full_width(engine, tmp_path):
    """Two of its twelve layers, which are alike."""
    paddle.seed(5)
    published = SD_1_5["text_encoder"]
    config = CLIPTextConfig.from_dict({**published, "num_hidden_layers": 2})
    layer = TextConditioner(CLIPTextModel(config), normalize=True)
    layer.eval()
    program = Program(
        "text_encoder",
        layer,
        (TensorSpec("input_ids", (None, 77), "int64"),),
        (
            TensorSpec("hidden_states", (3, None, 77, 768), "float32"),
            TensorSpec("pooled", (None, 768), "float32"),
        ),
    )
    plan = build(engine, vary(program), tmp_path)
    assert sum(each.size for each in layer.parameters()) == 123_060_480 - 10 * 7_087_872
    assert_holds(plan, program)


@needs_rtx
def test_static_programs_and_other_types_are_built(engine, tmp_path):
    for name in ("attention", "text encoder", "timestep embedding"):
        folder = tmp_path / name.replace(" ", "_")
        assert len(build(engine, CASES[name].program(folder.name), folder)) > 1000


@needs_rtx
def test_a_plan_is_for_its_target(engine, tmp_path):
    program = CASES["upsampler"].program("upsampler")
    plans = {
        target: build(engine, program, tmp_path / target, replace(SM86, target=target))
        for target in ("sm75", "sm89")
    }
    assert plans["sm75"] != plans["sm89"]


@needs_rtx
def test_an_operator_that_tensorrt_does_not_have_is_named(engine, tmp_path):
    program = CASES["many outputs"].program("many_outputs")
    with pytest.raises(EngineError, match=r"many_outputs: TensorRT cannot parse ArgMax \(ArgMax"):
        engine.build(program, SM86, tmp_path)


@needs_rtx
@pytest.mark.parametrize(
    "output", [TensorSpec("output", (3, 8, 10, 13), "float32"), TensorSpec("output", (), "int64")]
)
def test_an_output_that_breaks_its_spec_is_not_built(engine, output, tmp_path):
    program = replace(CASES["upsampler"].program("upsampler"), outputs=(output,))
    with pytest.raises(EngineError, match=r"'output' of its graph is float32 \(3, 8, 10, 14\)"):
        engine.build(program, SM86, tmp_path)


@needs_rtx
def test_sizes_must_be_given(engine, tmp_path):
    program = CASES["free dimensions"].program("free")
    with pytest.raises(EngineError, match=r"'sample' is float32 \(any, 16, any, any\)") as caught:
        engine.build(program, SM86, tmp_path)
    assert f"from {BATCH}" in caught.value.allowed


@needs_rtx
def test_an_unknown_target_is_explained(engine, tmp_path):
    with pytest.raises(EngineUnavailableError, match="does not build for 'sm99'") as caught:
        engine.build(
            CASES["upsampler"].program("upsampler"), BuildSpec(GPU, target="sm99"), tmp_path
        )
    assert {"sm86", "sm89", "sm120"} <= set(caught.value.allowed.split(", "))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (BuildSpec(Device("cpu"), target="sm86"), "tensorrt runs on gpu, not on cpu"),
        (
            BuildSpec(GPU, "int8", target="sm75"),
            "tensorrt runs int8 on GPUs from sm80, .* not on sm75: take fp16",
        ),
    ],
)
def test_what_it_does_not_do_is_refused(engine, spec, reason):
    with pytest.raises(EngineUnavailableError, match=reason):
        engine.require_build(spec)


def test_a_missing_package_is_named_with_its_remedy(engine, monkeypatch):
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineUnavailableError, match="TensorRT-RTX cannot be imported") as caught:
        engine.require_build(SM86)
    assert caught.value.fix == 'pip install "fastdeploy-diffusion[tensorrt-rtx]"'
    monkeypatch.setattr("fastdeploy_diffusion.engines.tensorrt.list_gpus", lambda: ["sm86"])
    available = engine.probe_run(GPU)
    assert available.reason.startswith("TensorRT cannot be imported: ")
    assert available.install == 'pip install "fastdeploy-diffusion[tensorrt]"'
    assert engine.probe_build(GPU) == available


@needs_rtx
def test_a_missing_paddle_is_named(engine, monkeypatch):
    assert engine.probe_build(GPU).ok  # whether there is a GPU or not
    monkeypatch.delitem(sys.modules, "fastdeploy_diffusion.paddle_runtime")
    monkeypatch.setitem(sys.modules, "paddle", None)
    with pytest.raises(EngineUnavailableError, match="Paddle cannot be imported") as caught:
        engine.require_build(SM86)
    assert caught.value.fix.startswith("pip install")


def test_a_plan_for_another_gpu_is_refused(engine, monkeypatch):
    monkeypatch.setattr("fastdeploy_diffusion.engines.tensorrt.list_gpus", lambda: ["sm75", "sm89"])
    support = engine.supports(BuildSpec(Device("gpu", 1), target="sm86"))
    assert (support.ok, support.reason) == (False, "gpu:1 is sm89, not sm86")
    assert engine.supports(BuildSpec(Device("gpu", 1), target="sm89")).ok
    elsewhere = engine.supports(BuildSpec(Device("gpu", 2), target="sm89"))
    assert (elsewhere.ok, elsewhere.reason) == (False, "gpu:2 is missing, not sm89")
    assert (
        engine.probe_run(Device("gpu", 2)).reason == "there is no gpu:2: the driver sees 2 GPU(s)"
    )


@without_gpu
def test_running_is_not_possible_without_a_gpu(engine, tmp_path):
    reason = "this machine has no NVIDIA GPU"
    assert engine.probe_run(GPU).reason == reason
    program = CASES["upsampler"].program("upsampler")
    for spec in (BuildSpec(GPU), SM86):
        with pytest.raises(EngineUnavailableError, match=reason):
            engine.load(program, spec, tmp_path)
    with pytest.raises(EngineUnavailableError, match=reason):
        engine.build(program, BuildSpec(GPU), tmp_path)


@pytest.mark.parametrize("name", ["paddle", "paddle-eager", "openvino", "onnxruntime"])
def test_other_engines_build_for_no_target(name):
    with pytest.raises(EngineUnavailableError, match=f"{name} builds for the machine .* not for"):
        create_engine(name).require_build(SM86)
