"""A graph in int8: what becomes of its layers, and the numbers that OpenVINO computes of it."""

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from drawn_parameters import draw_parameters
from paddle import nn
from paddle.nn import functional as F

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.export.int8 import (
    choose_scale,
    choose_symmetric_scale,
    quantize_export,
    quantize_graph,
)
from fastdeploy_diffusion.export.observers import OBSERVED, choose_ranges, observe_export
from fastdeploy_diffusion.export.onnx import export_onnx
from fastdeploy_diffusion.passes.graph.split_geglu import SplitGEGLU
from fastdeploy_diffusion.quantization import Quantization, Range
from fastdeploy_diffusion.runtime.manifest import check_manifest
from fastdeploy_diffusion.runtime.program import Program, TensorSpec
from fastdeploy_diffusion.runtime.weights import read_weights

CPU = BuildSpec(Device("cpu"), threads=1)


class Block(nn.Layer):
    """A convolution, two linear layers of the same numbers, and a gate."""

    def __init__(self, channels=16, width=24):
        super().__init__()
        self.conv = nn.Conv2D(4, channels, 3, padding=1)
        self.first = nn.Linear(channels, width)
        self.second = nn.Linear(channels, width, bias_attr=False)
        self.gate = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, 3)

    def forward(self, sample):
        features = F.silu(self.conv(sample)).flatten(2).transpose([0, 2, 1])
        both = self.first(features) * self.second(features)
        value, gate = self.gate(both).chunk(2, axis=-1)
        return self.out(value * F.gelu(gate))


LAYERS = ["conv", "first", "second", "gate", "out"]


@pytest.fixture(scope="module")
def program():
    block = Block()
    draw_parameters(block)
    block.eval()
    return Program(
        "block",
        block,
        (TensorSpec("sample", (None, 4, 9, 7), "float32"),),
        (TensorSpec("tokens", (None, 63, 3), "float32"),),
    )


@pytest.fixture(scope="module")
def feeds():
    random = np.random.default_rng(7)
    return [{"sample": random.standard_normal((2, 4, 9, 7)).astype(np.float32)} for _ in range(3)]


def run(program, spec, folder, feeds, engine="openvino"):
    with create_engine(engine).load(program, spec, folder) as session:
        return [session.run(**each) for each in feeds]


@pytest.fixture(scope="module")
def ranges(program, feeds, tmp_path_factory):
    folder = tmp_path_factory.mktemp("observed")
    create_engine("openvino").build(program, CPU, folder)
    observed, layers = observe_export(program, folder)
    assert layers == LAYERS
    outputs = run(observed, CPU, folder, feeds)
    return choose_ranges("block", layers, [each[OBSERVED] for each in outputs], clips=False)


def build_int8(program, folder, ranges, precision="int8", skip=(), engine="openvino"):
    quantized = replace(program, quantization=Quantization(ranges, frozenset(skip)))
    create_engine(engine).build(quantized, replace(CPU, precision=precision), folder)
    return onnx.load(folder / "graph.onnx", load_external_data=False)


def simulate(program, folder, feeds):
    """The graph in float32, operator by operator: what rounding does to it by itself."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(folder / "graph.onnx"), options)
    weights = read_weights(program, check_manifest(program, folder))
    return [{"tokens": session.run(None, {**each, **weights})[0]} for each in feeds]


def count(model, operator):
    return sum(node.op_type == operator for node in model.graph.node)


def measure_error(given, wanted):
    given, wanted = (np.concatenate([each["tokens"] for each in part]) for part in (given, wanted))
    return float(np.sqrt(np.square(given - wanted).mean() / np.square(wanted).mean()))


def test_observed_ranges_are_those_of_the_numbers(program, feeds, ranges, tmp_path):
    samples = np.concatenate([each["sample"] for each in feeds])
    assert ranges["conv"] == Range(float(samples.min()), float(samples.max()))
    assert ranges["first"] == ranges["second"], "they read the same numbers"
    assert ranges["first"].low == pytest.approx(-0.2785, abs=1e-3), "the least that SiLU gives"


def test_the_output_of_observers_leaves_the_others_alone(program, feeds, tmp_path):
    engine = create_engine("openvino")
    for name in ("plain", "observed"):
        engine.build(program, CPU, tmp_path / name)
    observed, _ = observe_export(program, tmp_path / "observed")
    plain = run(program, CPU, tmp_path / "plain", feeds)
    beside = run(observed, CPU, tmp_path / "observed", feeds)
    for one, other in zip(plain, beside, strict=True):
        np.testing.assert_array_equal(one["tokens"], other["tokens"])


def test_a_range_is_clipped_where_that_loses_less():
    random = np.random.default_rng(3)
    body = random.standard_normal((1, 4096)).astype(np.float32)
    outlier = np.array([[-40.0, 60.0]], np.float32)
    rows = np.concatenate([outlier, body], axis=1)
    full = choose_ranges("x", ["x"], [rows], clips=False)["x"]
    clipped = choose_ranges("x", ["x"], [rows])["x"]
    assert full == Range(-40, 60)
    assert clipped.high < 30, "the sample has no outlier"
    assert clipped.low / full.low == pytest.approx(clipped.high / full.high)


def test_without_a_call_there_are_no_ranges():
    with pytest.raises(EngineError, match="no inputs to calibrate"):
        choose_ranges("x", ["x"], [])


@pytest.mark.parametrize(
    "numbers", [Range(-1.5, 3.0), Range(0.2, 0.9), Range(-4.0, -1.0), Range(0.0, 0.0)]
)
def test_zero_is_exact_and_ends_are_within_a_step(numbers):
    scale, zero = choose_scale(numbers)
    ends = (0 - float(zero)) * float(scale), (255 - float(zero)) * float(scale)
    assert ends[0] <= min(numbers.low, 0) + scale
    assert ends[1] >= max(numbers.high, 0) - scale


@pytest.mark.parametrize("numbers", [Range(-1.5, 3.0), Range(-4.0, -1.0), Range(0.0, 0.0)])
def test_a_symmetric_scale_reaches_the_farther_end(numbers):
    scale, zero = choose_symmetric_scale(numbers)
    assert (zero, zero.dtype) == (0, np.int8)
    assert 127 * float(scale) == pytest.approx(max(np.abs(numbers)))
    assert scale > 0


def test_symmetric_numbers_lose_a_little_more(program, feeds, ranges, tmp_path):
    create_engine("openvino").build(program, CPU, tmp_path / "float")
    wanted = run(program, CPU, tmp_path / "float", feeds)
    quantized = replace(program, quantization=Quantization(ranges))
    errors = []
    for symmetric in (False, True):
        folder = tmp_path / f"symmetric-{symmetric}"
        export_onnx(quantized, folder)
        quantize_export(quantized, folder, "int8", 8, symmetric=symmetric)
        errors.append(measure_error(simulate(quantized, folder, feeds), wanted))
    assert errors[0] < errors[1] < 2 * errors[0] < 0.11


def test_scales_have_the_type_of_what_they_scale(program, ranges, tmp_path):
    quantized = replace(program, quantization=Quantization(ranges, frozenset(["out"])))
    export_onnx(quantized, tmp_path, precision="fp16")
    quantize_export(quantized, tmp_path, "int8", 8, symmetric=True)
    model = onnx.load(tmp_path / "graph.onnx")
    onnx.checker.check_model(model, full_check=True)
    weights = check_manifest(program, tmp_path)
    assert {name: each.dtype for name, each in weights.items() if "weight" in name} == {
        **dict.fromkeys([f"{name}.weight" for name in LAYERS[:-1]], "int8"),
        **dict.fromkeys([f"{name}.weight.scales" for name in LAYERS[:-1]], "float16"),
        "out.weight": "float16",
    }
    assert count(model, "QuantizeLinear") == 3


def test_every_layer_reads_eight_bits_and_is_near_float32(program, feeds, ranges, tmp_path):
    model = build_int8(program, tmp_path, ranges)
    onnx.checker.check_model(model, full_check=True)
    assert count(model, "QuantizeLinear") == 4, "two layers share one"
    assert count(model, "DequantizeLinear") == 4 + 5
    weights = check_manifest(program, tmp_path)
    assert {name: each.dtype for name, each in weights.items() if "gate" in name} == {
        "gate.weight": "int8",
        "gate.weight.scales": "float32",
        "gate.bias": "float32",
    }
    create_engine("openvino").build(program, CPU, tmp_path / "float")
    wanted = run(program, CPU, tmp_path / "float", feeds)
    given = run(program, replace(CPU, precision="int8"), tmp_path, feeds)
    rounding = measure_error(simulate(program, tmp_path, feeds), wanted)
    assert 0.005 < rounding < 0.1
    assert 0.5 * rounding < measure_error(given, wanted) < 1.3 * rounding


def test_a_wrong_range_shows_in_the_numbers(program, feeds, ranges, tmp_path):
    wrong = {**ranges, "conv": Range(*(each / 4 for each in ranges["conv"]))}
    build_int8(program, tmp_path / "int8", wrong)
    create_engine("openvino").build(program, CPU, tmp_path / "float")
    wanted = run(program, CPU, tmp_path / "float", feeds)
    given = run(program, replace(CPU, precision="int8"), tmp_path / "int8", feeds)
    assert measure_error(given, wanted) > 0.2


def test_skipped_layers_stay_as_they_are(program, feeds, ranges, tmp_path):
    model = build_int8(program, tmp_path, ranges, skip=["conv", "second"])
    assert count(model, "QuantizeLinear") == 3
    weights = check_manifest(program, tmp_path)
    assert {name for name, each in weights.items() if each.dtype == "int8"} == {
        "first.weight",
        "gate.weight",
        "out.weight",
    }


def test_weights_alone_need_no_ranges(program, feeds, tmp_path):
    model = build_int8(program, tmp_path, {}, "int8-weights")
    assert (count(model, "QuantizeLinear"), count(model, "DequantizeLinear")) == (0, 4)
    create_engine("openvino").build(program, CPU, tmp_path / "float")
    wanted = run(program, CPU, tmp_path / "float", feeds)
    given = run(program, replace(CPU, precision="int8-weights"), tmp_path, feeds)
    rounding = measure_error(simulate(program, tmp_path, feeds), wanted)
    assert 1e-3 < rounding < 0.02
    assert measure_error(given, wanted) < 1.3 * rounding + 0.008, "and bf16 where the CPU has it"


def test_without_calibration_int8_is_refused(program, tmp_path):
    export_onnx(program, tmp_path)
    before = (tmp_path / "graph.onnx").read_bytes()
    with pytest.raises(EngineError, match="not calibrated"):
        quantize_export(program, tmp_path, "int8", 8)
    assert (tmp_path / "graph.onnx").read_bytes() == before


def test_halves_of_a_weight_share_its_scales(program, ranges, feeds, tmp_path):
    split = replace(program, graph_passes=(SplitGEGLU(),))
    model = build_int8(split, tmp_path, ranges)
    assert count(model, "MatMul") == 5
    create_engine("openvino").build(program, CPU, tmp_path / "float")
    wanted = run(program, CPU, tmp_path / "float", feeds)
    given = run(program, replace(CPU, precision="int8"), tmp_path, feeds)
    rounding = measure_error(simulate(program, tmp_path, feeds), wanted)
    assert measure_error(given, wanted) < 1.3 * rounding


def test_a_weight_that_something_else_reads_is_left_alone(program, ranges, tmp_path):
    export_onnx(program, tmp_path)
    model = onnx_ir.load(tmp_path / "graph.onnx")
    weight = next(each for each in model.graph.inputs if each.name == "gate.weight")
    node = onnx_ir.node("Neg", [weight])
    model.graph.append(node)
    model.graph.outputs.append(node.outputs[0])
    quantized = quantize_graph(
        model.graph, list(check_manifest(program, tmp_path)), Quantization(ranges)
    )
    assert quantized == ["conv", "first", "second", "out"]


def test_the_same_ranges_have_the_same_digest_and_others_another(ranges):
    one = Quantization(ranges, frozenset(["conv"]))
    assert Quantization.parse(one.describe()) == one
    assert Quantization.parse(one.describe()).digest == one.digest
    assert Quantization(ranges).digest != one.digest
    wider = {**ranges, "out": Range(-9, 9)}
    assert Quantization(wider, one.skip).digest != one.digest
    with pytest.raises(ValueError, match="no quantization"):
        Quantization.parse({"ranges": {"conv": 1}, "skip": []})


@pytest.mark.parametrize("passes", [(), (SplitGEGLU(),)])
def test_onnxruntime_multiplies_integers(program, feeds, ranges, tmp_path, passes):
    split = replace(program, graph_passes=passes)
    model = build_int8(split, tmp_path, ranges, engine="onnxruntime")
    assert (count(model, "ConvInteger"), count(model, "Conv")) == (1, 0)
    create_engine("openvino").build(program, CPU, tmp_path / "float")
    wanted = run(program, CPU, tmp_path / "float", feeds)
    build_int8(program, tmp_path / "same", ranges)
    rounding = measure_error(simulate(program, tmp_path / "same", feeds), wanted)
    spec = replace(CPU, precision="int8")
    given = run(program, spec, tmp_path, feeds, "onnxruntime")
    assert 0.5 * rounding < measure_error(given, wanted) < 1.2 * rounding
    with create_engine("onnxruntime").load(program, spec, tmp_path) as session:
        kinds = {each.kind for each in session.profile(**feeds[0])}
    assert "MatMulIntegerToFloat" in kinds
    assert not {"MatMul", "Conv", "FusedMatMul"} & kinds


class Phases(nn.Layer):
    """Two convolutions, each with its outputs of one weight."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2D(4, 6, 2)

    def forward(self, sample):
        weight = self.conv.weight
        return F.conv2d(sample, weight[:3]) * F.conv2d(sample, weight[3:])


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_convolutions_of_one_weight_get_their_own_outputs(feeds, tmp_path, engine):
    layer = Phases()
    draw_parameters(layer)
    layer.eval()
    outputs = (TensorSpec("tokens", (None, 3, 8, 6), "float32"),)
    program = Program("phases", layer, (TensorSpec("sample", (None, 4, 9, 7), "float32"),), outputs)
    create_engine("openvino").build(program, CPU, tmp_path / "float")
    wanted = run(program, CPU, tmp_path / "float", feeds)
    build_int8(program, tmp_path, {"conv": Range(-4, 4)}, engine=engine)
    given = run(program, replace(CPU, precision="int8"), tmp_path, feeds, engine)
    assert 1e-3 < measure_error(given, wanted) < 0.03
