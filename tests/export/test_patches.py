"""Convolutions with weights in int8 are products of patches, where that takes less memory."""

from dataclasses import replace

import numpy as np
import onnx
import openvino
import paddle
import pytest
from drawn_parameters import draw_parameters
from paddle import nn

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.openvino_model import read_model
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.quantization import Quantization
from fastdeploy_diffusion.runtime.manifest import check_manifest
from fastdeploy_diffusion.runtime.program import Program, TensorSpec

CPU = BuildSpec(Device("cpu"), threads=1)
WEIGHTS = BuildSpec(Device("cpu"), "int8-weights", threads=1)
SIZE = (6, 5)  # 30 numbers a channel: up to twice the 16 output channels


class Chain(nn.Layer):
    """The convolution to try, between two others that stay as they are."""

    def __init__(self, *arguments, **options):
        super().__init__()
        self.first = nn.Conv2D(3, 8, 1)  # 30 numbers a channel: more than twice the 8
        self.tried = nn.Conv2D(8, *arguments, **options)

    def forward(self, sample):
        return self.tried(self.first(sample))


def make_program(chain, sizes=SIZE):
    draw_parameters(chain)
    chain.eval()
    inputs = (TensorSpec("sample", (None, 3, *sizes), "float32"),)
    area = chain(paddle.ones([1, 3, *SIZE])).shape[2:] if sizes == SIZE else sizes
    return Program("chain", chain, inputs, (TensorSpec("out", (None, 16, *area), "float32"),))


def build(program, spec, folder):
    create_engine("openvino").build(program, spec, folder)
    return onnx.load(folder / "graph.onnx", load_external_data=False)


def run(program, spec, folder, feed):
    with create_engine("openvino").load(program, spec, folder) as session:
        return session.run(sample=feed)["out"]


def list_int8(program, folder):
    weights = check_manifest(program, folder)
    return [name for name, each in weights.items() if each.dtype == "int8"]


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((16, 3), {"padding": 1}),
        ((16, 3), {"padding": 1, "bias_attr": False}),
        ((16, 3), {"padding": 1, "stride": 2}),
        ((16, 3), {"padding": [0, 1, 0, 1], "stride": 2}),
        ((16, 2), {"stride": (1, 2)}),
        ((16, (3, 1)), {}),
        ((16, 1), {}),
        ((16, 1), {"stride": 2}),
    ],
    ids=repr,
)
def test_a_convolution_gives_the_same_numbers(arguments, options, tmp_path):
    program = make_program(Chain(*arguments, **options))
    feed = np.random.default_rng(1).standard_normal((2, 3, *SIZE)).astype(np.float32)
    build(program, CPU, tmp_path / "float")
    model = build(program, WEIGHTS, tmp_path)
    onnx.checker.check_model(model, full_check=True)
    assert list_int8(program, tmp_path) == ["tried.weight"]
    assert [node.op_type for node in model.graph.node].count("Conv") == 1
    wanted = run(program, CPU, tmp_path / "float", feed)
    given = run(program, WEIGHTS, tmp_path, feed)
    error = np.sqrt(np.square(given - wanted).mean() / np.square(wanted).mean())
    assert 1e-4 < error < 0.02, "rounding, and bf16 where the CPU has it"


@pytest.mark.parametrize(
    ("chain", "sizes", "skip"),
    [
        (Chain(16, 3, padding=1), (6, 6), []),
        (Chain(16, 3, padding=1), (None, None), []),
        (Chain(16, 3, padding=2, dilation=2), SIZE, []),
        (Chain(16, 3, padding=1, groups=2), SIZE, []),
        (Chain(16, 3, padding=1), SIZE, ["tried"]),
    ],
    ids=["too many patches", "free sizes", "dilated", "grouped", "skipped"],
)
def test_others_stay_in_floating_point(chain, sizes, skip, tmp_path):
    program = make_program(chain, sizes)
    skipping = replace(program, quantization=Quantization({}, frozenset(skip)))
    model = build(skipping, WEIGHTS, tmp_path)
    assert list_int8(program, tmp_path) == []
    assert [node.op_type for node in model.graph.node].count("Conv") == 2


@pytest.mark.parametrize("kernel", [1, 3])
def test_openvino_keeps_their_weights_in_int8(kernel, tmp_path):
    program = make_program(Chain(16, kernel, padding=kernel // 2))
    build(program, WEIGHTS, tmp_path)
    core = openvino.Core()
    model = read_model(core, program, tmp_path).model
    model.reshape({"sample": [2, 3, *SIZE]})
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    types = [each.get_output_element_type(0) for each in compiled.get_runtime_model().get_ops()]
    assert types.count(openvino.Type.i8) == 1
