"""Products of eight bits are those of integers, on every CPU; with weights of eight, where it can.

Without VNNI, x86 adds products up in pairs in 16 bits, whose largest number takes the place of what
is beyond. So inputs and weights here are large, and most of one sign.
"""

from typing import NamedTuple

import ml_dtypes
import numpy as np
import paddle
import pytest
from paddle import nn

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.openvino import DYNAMIC_GROUP, read_capabilities
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.export.int8 import choose_scale, quantize_export
from fastdeploy_diffusion.machine import multiplies_bf16_slowly, sums_saturate
from fastdeploy_diffusion.quantization import Quantization, Range
from fastdeploy_diffusion.runtime.manifest import check_manifest
from fastdeploy_diffusion.runtime.program import Program, TensorSpec
from fastdeploy_diffusion.runtime.weights import read_weights

FLOAT = BuildSpec(Device("cpu"))
LAYERS = 16  # of each kind
SEEDS = (0, 1)


class Convolution(NamedTuple):
    """A convolution of random shape, on pictures of a size."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    groups: int
    size: tuple[int, int]


class Layers(nn.Layer):
    """Convolutions and linear layers, each with an input and an output of its own."""

    def __init__(self, convolutions, linears, random):
        super().__init__()
        self.convs = nn.LayerList(
            nn.Conv2D(
                *each[:3],
                stride=each.stride,
                padding=each.padding,
                dilation=each.dilation,
                groups=each.groups,
                bias_attr=None if index % 2 else False,
            )
            for index, each in enumerate(convolutions)
        )
        self.linears = nn.LayerList(
            nn.Linear(*each[:2], bias_attr=None if index % 2 else False)
            for index, each in enumerate(linears)
        )
        for each in self.parameters():
            signs = np.where(random.random(each.shape) < 0.85, 1, -1)
            numbers = random.uniform(0.6, 1, each.shape) * signs * random.uniform(0.01, 2)
            each.set_value(paddle.to_tensor(numbers.astype(np.float32)))

    def forward(self, *inputs):
        layers = (*self.convs, *self.linears)
        return tuple(layer(each) for layer, each in zip(layers, inputs, strict=True))


def draw_convolution(random):
    groups = int(random.choice([1, 1, 1, 2]))
    kernel = int(random.choice([1, 3, 3, 3, 5]))
    inputs, outputs = (groups * int(random.integers(1, 80)) for _ in range(2))
    stride, dilation = (int(random.choice([1, 1, 2])) for _ in range(2))
    size = tuple(int(each) for each in random.integers(dilation * (kernel - 1) + 1, 20, 2))
    padding = int(random.integers(0, kernel))
    return Convolution(inputs, outputs, kernel, stride, padding, dilation, groups, size)


def draw_linear(random):
    """Inputs, outputs and rows."""
    return tuple(int(random.choice([1, random.integers(2, 300)], p=[0.05, 0.95])) for _ in "ior")


def convolve(picture, weight, layer):
    """Add up products of integers; float64 holds them exactly."""
    sides = ((layer.padding, layer.padding),) * 2
    padded = np.pad(picture.astype(np.float64), ((0, 0), (0, 0), *sides))
    reach = layer.dilation * (layer.kernel - 1) + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, (reach, reach), (2, 3))
    windows = windows[:, :, :: layer.stride, :: layer.stride, :: layer.dilation, :: layer.dilation]
    parts = np.split(windows, layer.groups, 1), np.split(weight, layer.groups)
    sums = [np.einsum("bihwyx,oiyx->bohw", *each) for each in zip(*parts, strict=True)]
    return np.concatenate(sums, 1)


@pytest.fixture(scope="module", params=SEEDS)
def case(request):
    """Returns the program, its inputs, and for each layer its name and exact product."""
    random = np.random.default_rng(request.param)
    convolutions = [draw_convolution(random) for _ in range(LAYERS)]
    linears = [draw_linear(random) for _ in range(LAYERS)]
    layer = Layers(convolutions, linears, random)
    layer.eval()
    shapes = [(1, each.inputs, *each.size) for each in convolutions]
    shapes += [(1, rows, inputs) for inputs, _, rows in linears]
    names = [f"convs.{index}" for index in range(LAYERS)]
    names += [f"linears.{index}" for index in range(LAYERS)]
    ranges, rounded, feeds, products = {}, [], {}, []
    for index, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        ranges[name] = Range(-float(random.choice([0, 0.05, 1])), float(random.uniform(0.1, 4)))
        scale, zero = choose_scale(ranges[name])
        codes = np.where(random.random(shape) < 0.9, random.integers(200, 256, shape), 0)
        rounded.append(codes - int(zero))
        # Numbers that eight bits hold: rounding leaves nothing to choose.
        feeds[f"input_{index}"] = (rounded[-1] * scale).astype(np.float32)
        products.append((name, scale))
    inputs = tuple(TensorSpec(name, each.shape, "float32") for name, each in feeds.items())
    outputs = tuple(
        TensorSpec(f"output_{index}", tuple(each.shape), "float32")
        for index, each in enumerate(layer(*map(paddle.to_tensor, feeds.values())))
    )
    program = Program("layers", layer, inputs, outputs, quantization=Quantization(ranges))

    def multiply(folder):
        weights = read_weights(program, check_manifest(program, folder))
        for index, (name, scale) in enumerate(products):
            weight = weights[f"{name}.weight"].astype(np.int64)
            steps = (weights[f"{name}.weight.scales"] * scale).astype(np.float64)
            bias = weights.get(f"{name}.bias", np.zeros(len(steps)))
            if index < LAYERS:
                sums = convolve(rounded[index], weight, convolutions[index])
                yield sums * steps[:, None, None] + bias[:, None, None]
            else:
                yield (rounded[index] @ weight.T) * steps + bias

    return program, feeds, names, multiply


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def exported(request, case, tmp_path_factory):
    """Export for an engine in float32; returns what quantizes it, runs it and finds the errors."""
    program, feeds, names, multiply = case
    engine = create_engine(request.param)
    spec = BuildSpec(Device("cpu"), "int8")
    if not (support := engine.supports(spec)).ok:
        pytest.skip(support.reason)

    def measure(bits):
        folder = tmp_path_factory.mktemp(request.param)
        engine.build(program, FLOAT, folder)
        quantize_export(program, folder, "int8", bits, engine.dialect)
        with engine.load(program, spec, folder) as session:
            given = session.run(**feeds)
        return {
            name: float(np.abs(found - wanted).max() / np.abs(wanted).max())
            for name, found, wanted in zip(names, given.values(), multiply(folder), strict=True)
        }

    # Operators that are not quantized run in bf16 on CPUs that are fast in it.
    halves = "BF16" in read_capabilities() and not multiplies_bf16_slowly()
    return measure, 1e-2 if halves and request.param == "openvino" else 1e-5


def test_products_with_weights_of_seven_bits_are_exact(exported):
    measure, tolerance = exported
    errors = measure(7)
    assert max(errors.values()) < tolerance, errors


def test_products_with_weights_of_eight_bits_are_exact_where_they_are_used(exported):
    measure, tolerance = exported
    errors = measure(8)
    if sums_saturate():
        assert max(errors.values()) > 0.05, "otherwise all eight bits could be used here"
    else:
        assert max(errors.values()) < tolerance, errors


def test_with_vnni_openvino_rounds_what_products_with_weights_in_int8_read(tmp_path):
    random = np.random.default_rng(3)
    rows, inputs, outputs = 24, 5 * DYNAMIC_GROUP, 96
    layer = Layers([], [(inputs, outputs, rows)], random)
    layer.eval()
    given, wanted = (
        TensorSpec(*each, "float32") for each in (("x", (rows, inputs)), ("y", (rows, outputs)))
    )
    program = Program("linear", layer, (given,), (wanted,))
    engine, spec = create_engine("openvino"), BuildSpec(Device("cpu"), "int8-weights")
    engine.build(program, spec, tmp_path)
    numbers = read_weights(program, check_manifest(program, tmp_path))
    scales = numbers["linears.0.weight.scales"]
    weight = numbers["linears.0.weight"].astype(np.float32) * scales[:, None]
    read = random.standard_normal((rows, inputs))
    read *= random.uniform(0.01, 10, (rows, 1))  # every row has its own scale
    read = read.astype(ml_dtypes.bfloat16).astype(np.float32)
    with engine.load(program, spec, tmp_path) as session:
        found = session.run(x=read)["y"]
    groups = read.reshape(rows, -1, DYNAMIC_GROUP)
    steps = np.abs(groups).max(-1, keepdims=True) / 127
    rounded = (np.rint(groups / steps) * steps).reshape(rows, inputs)

    def measure(exact):
        return float(np.sqrt(np.square(found - exact).mean() / np.square(exact).mean()))

    of_integers, of_floats = measure(rounded @ weight.T), measure(read @ weight.T)
    if sums_saturate():
        assert of_floats < 1e-5
    else:
        assert of_integers < of_floats / 2, (of_integers, of_floats)
        assert of_floats < 0.02
