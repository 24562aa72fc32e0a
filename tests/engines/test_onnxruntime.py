"""ONNX Runtime in half precision: what it makes of the graph on a CPU, where it has few kernels."""

import numpy as np
import onnx
import onnxruntime
import pytest
from component_programs import COMPONENTS
from engine_programs import CASES, draw_feeds
from onnx import TensorProto

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.onnxruntime import _choose_provider
from fastdeploy_diffusion.engines.paddle_layer import run_layer
from fastdeploy_diffusion.engines.registry import create_engine

CASE = COMPONENTS["vae decoder"]
FLOAT = TensorProto.FLOAT
CPU, GPU = Device("cpu"), Device("gpu")


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Build and load the decoder; also give the graph that the runtime made of it."""

    def load_(precision):
        final = tmp_path / "final.onnx"
        open_session = onnxruntime.InferenceSession

        def open_and_keep(graph, options, **rest):
            options.optimized_model_filepath = str(final)
            return open_session(graph, options, **rest)

        monkeypatch.setattr(onnxruntime, "InferenceSession", open_and_keep)
        program = CASE.program("vae_decoder")
        engine, spec = create_engine("onnxruntime"), BuildSpec(CPU, precision)
        engine.build(program, spec, tmp_path)
        return program, engine.load(program, spec, tmp_path), onnx.load(str(final)).graph

    return load_


@pytest.mark.parametrize(
    ("precision", "dtype", "least"),
    [("fp16", TensorProto.FLOAT16, 2**-13), ("bf16", TensorProto.BFLOAT16, 2**-10)],
)
def test_numbers_are_half_between_operators_and_weights_in_memory(precision, dtype, least, load):
    program, session, graph = load(precision)
    feeds = draw_feeds(CASE, 0, free=2)
    given, wanted = session.run(**feeds)["images"], run_layer(program, feeds)["images"]
    error = np.abs(given - wanted).max() / np.abs(wanted).max()
    assert least <= error <= 2e-2  # rounded, and not too much
    roundings = [
        node
        for node in graph.node
        if node.op_type == "Cast" and any(each.i == dtype for each in node.attribute)
    ]
    assert len(roundings) >= sum(node.op_type == "Conv" for node in graph.node)
    held = {each.name: each.data_type for each in graph.initializer}
    weights = [name for name, _ in program.layer.named_parameters() if name in held]
    assert len(weights) > 50
    # The norms' scales and shifts stay.
    assert {held[name] for name in weights if "norm" not in name} == {dtype}
    constants = sum(np.prod(each.dims) for each in graph.initializer if each.data_type == FLOAT)
    assert constants * 10 <= sum(each.size for each in program.layer.parameters())


def test_bound_inputs_go_to_the_device_once(tmp_path, monkeypatch):
    case = CASES["attention"]
    program, engine, spec = case.program("attention"), create_engine("onnxruntime"), BuildSpec(CPU)
    engine.build(program, spec, tmp_path)
    feeds, others = draw_feeds(case, 0), draw_feeds(case, 1)
    with engine.load(program, spec, tmp_path) as session:
        wanted, changed = (
            session.run(**feeds),
            session.run(**{**feeds, "context": others["context"]}),
        )
        sent = []
        make = onnxruntime.OrtValue.ortvalue_from_numpy

        def make_and_count(array, *place):
            sent.append(array.shape)
            return make(array, *place)

        monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", make_and_count)
        for context, result in ((feeds["context"], wanted), (others["context"], changed)):
            session.bind(context=context)
            sent.clear()
            for _ in range(3):
                given = session.run(sample=feeds["sample"])
                np.testing.assert_array_equal(given["output"], result["output"])
            assert sent.count(context.shape) == 1
            assert sent.count(feeds["sample"].shape) == 3


def test_gpus_compute_float32_as_float32():
    assert _choose_provider(CPU) == ("CPUExecutionProvider", {})
    name, options = _choose_provider(Device("gpu", 1))
    assert name == "CUDAExecutionProvider"
    assert (options["device_id"], options["use_tf32"]) == ("1", "0")


def test_bf16_is_for_cpus_only():
    engine = create_engine("onnxruntime")
    assert engine.supports(BuildSpec(GPU, "fp16")).ok
    support = engine.supports(BuildSpec(GPU, "bf16"))
    assert (support.ok, support.reason) == (False, "onnxruntime runs fp32, fp16 on gpu, not bf16")
