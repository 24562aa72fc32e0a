"""What users choose of TensorRT's builds: bounds of sizes, options, quantisation in the graph."""

import importlib.util
from dataclasses import replace

import numpy as np
import onnx
import pytest
from component_programs import COMPONENTS
from engine_programs import CASES
from onnx import TensorProto, helper, numpy_helper
from test_free_sizes import free_sizes

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.compiler.cache_key import make_graph_key
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.placement import select_engine
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.engines.tensorrt_builder import (
    _apply_options,
    bound_batch,
    build_plan,
    list_profile_shapes,
)
from fastdeploy_diffusion.engines.tensorrt_package import import_tensorrt, make_logger
from fastdeploy_diffusion.engines.tensorrt_timings import TimingCache, find_timings
from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.runtime.program import Program, TensorSpec

SM86 = BuildSpec(Device("gpu"), target="sm86")

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason='tensorrt_rtx is not installed: pip install "fastdeploy-diffusion[tensorrt-rtx]"',
)


@pytest.fixture
def trt():
    return import_tensorrt("sm86")


@pytest.fixture
def builder_config(trt):
    builder = trt.Builder(make_logger(trt))
    return builder.create_builder_config()


def test_a_profile_has_the_bounds_of_every_size():
    program = free_sizes(COMPONENTS["sd1 unet"].program("unet"), 1)
    assert list_profile_shapes(program) == {
        "sample": [(1, 4, 4, 4), (2, 4, 8, 8), (4, 4, 16, 16)],
        "timestep": [(1,), (2,), (4,)],
        "encoder_hidden_states": [(1, 1, 24), (2, 7, 24), (4, 7, 24)],
    }
    assert list_profile_shapes(CASES["attention"].program("attention")) == {}


@needs_rtx
@pytest.mark.slow
def test_free_sizes_are_built_with_options(tmp_path):
    program = free_sizes(COMPONENTS["bare vae decoder"].program("vae"), 4)
    spec = replace(SM86, options={"optimization_level": 0, "workspace_gib": 1.0})
    create_engine("tensorrt").build(program, spec, tmp_path)


@needs_rtx
def test_options_reach_the_builder(trt, builder_config):
    _apply_options(trt, builder_config, {"optimization_level": 5, "workspace_gib": 0.5})
    assert builder_config.builder_optimization_level == 5
    assert builder_config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 2**29


def test_options_are_in_the_key():
    engine, program = create_engine("tensorrt"), CASES["conv block"].program("block")
    signature = {"inputs": program.inputs, "outputs": program.outputs}
    keys = [
        make_graph_key(engine, spec, "block", signature, {}, [])
        for spec in (SM86, replace(SM86, options={"optimization_level": 4}))
    ]
    assert keys[0].digest != keys[1].digest
    assert keys[1].ingredients["options"] == {"optimization_level": 4}


def test_options_of_an_engine_are_for_that_engine():
    options = {"tensorrt": {"optimization_level": 4}}
    placement = select_engine("auto", Device("cpu"), "fp32", cpu_fallback=False, options=options)
    assert placement.spec.options == {}
    config = DiffusionConfig(
        model_path="m", tensorrt={"optimization_level": 4}, denoiser={"engine": "tensorrt"}
    )
    assert config.component("denoiser").options == options
    config = DiffusionConfig(model_path="m", tensorrt={"optimization_level": 4}, device="gpu")
    assert config.component("denoiser").options == options
    for choice in ({}, {"engine": "openvino"}, {"engine": "paddle", "device": "gpu"}):
        with pytest.raises(ConfigError, match="tensorrt has options, and no component runs on it"):
            DiffusionConfig(model_path="m", tensorrt={"optimization_level": 4}, **choice)


@needs_rtx
def test_a_graph_with_quantisation_is_built(trt):
    program = Program(
        "quantised",
        None,
        (TensorSpec("sample", (None, 4, 8, 8), "float32"),),
        (TensorSpec("output", (None, 8, 8, 8), "float32"),),
    )
    plan = build_plan(trt, bound_batch(program), _write_quantised_convolution(), {}, SM86)
    assert memoryview(plan).nbytes > 1000


def test_rtx_times_no_kernels(tmp_path):
    named = {name: type(name, (), {"__name__": name}) for name in ("tensorrt", "tensorrt_rtx")}
    for trt in named.values():
        trt.__version__ = "10.13"
    assert find_timings(named["tensorrt_rtx"], tmp_path, "sm86") is None
    assert find_timings(named["tensorrt"], None, "sm86") is None
    path = find_timings(named["tensorrt"], tmp_path, "sm86").path
    assert path == tmp_path / "tensorrt-timings" / "10.13-sm86"


@needs_rtx
@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_timings_are_written_and_read(trt, builder_config, tmp_path):
    timings = TimingCache(tmp_path / "timings" / "10.13-sm86")
    for _ in range(2):
        timings.attach(builder_config)
        timings.keep(builder_config)
        assert [file.name for file in timings.path.parent.iterdir()] == ["10.13-sm86"]
    blocked = TimingCache(timings.path / "below-a-file")
    blocked.attach(builder_config)
    blocked.keep(builder_config)  # a folder that cannot be made costs time, not the build


def _write_quantised_convolution():
    """A convolution of int8 values by explicit quantisation: Q/DQ before it, DQ of its weights."""
    weights = np.random.default_rng(0).integers(-127, 127, (8, 4, 3, 3)).astype(np.int8)
    constants = {
        "scale": np.float32(0.05),
        "zero": np.int8(0),
        "weights": weights,
        "weight_scales": np.full(8, 0.01, np.float32),
        "weight_zeros": np.zeros(8, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["sample", "scale", "zero"], ["quantised"]),
        helper.make_node("DequantizeLinear", ["quantised", "scale", "zero"], ["restored"]),
        helper.make_node(
            "DequantizeLinear", ["weights", "weight_scales", "weight_zeros"], ["kernel"], axis=0
        ),
        helper.make_node("Conv", ["restored", "kernel"], ["output"], pads=[1, 1, 1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("sample", TensorProto.FLOAT, ["batch", 4, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 8, 8, 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
