"""Plans in int8 are really built for a GPU that is elsewhere, and their layers multiply integers.

What TensorRT makes of each layer is in its builder's log: an inspector needs a GPU.
"""

import importlib.util
import re
from dataclasses import replace
from typing import NamedTuple

import pytest
from component_programs import COMPONENTS
from drawn_parameters import draw_parameters
from paddle import nn
from paddle.nn import functional as F

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines import tensorrt_builder
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.engines.tensorrt import PLAN_FILE
from fastdeploy_diffusion.engines.tensorrt_package import import_tensorrt
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.quantization import Quantization, Range
from fastdeploy_diffusion.runtime.manifest import check_manifest
from fastdeploy_diffusion.runtime.program import Program, TensorSpec

INT8 = BuildSpec(Device("gpu"), "int8", target="sm86", options={"optimization_level": 0})
LAYERS = ["conv", "first", "second", "out"]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason='tensorrt_rtx is not installed: pip install "fastdeploy-diffusion[tensorrt-rtx]"',
)


class Block(nn.Layer):
    """A convolution, two linear layers of the same numbers, and one of both."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2D(8, 16, 3, padding=1)
        self.first = nn.Linear(16, 32)
        self.second = nn.Linear(16, 32, bias_attr=False)
        self.out = nn.Linear(32, 48)

    def forward(self, sample):
        features = F.silu(self.conv(sample)).flatten(2).transpose([0, 2, 1])
        return self.out(self.first(features) * F.gelu(self.second(features)))


@pytest.fixture(scope="module")
def program():
    block = Block()
    draw_parameters(block)
    block.eval()
    return Program(
        "block",
        block,
        (TensorSpec("sample", (None, 8, 8, 8), "float32"),),
        (TensorSpec("tokens", (None, 64, 48), "float32"),),
        quantization=Quantization(dict.fromkeys(LAYERS, Range(-1, 4))),
    )


class Layer(NamedTuple):
    """A kernel of a plan: its kind, the types of what it reads, and the operators in it."""

    kind: str
    inputs: list[str]
    constants: list[str]
    operators: list[str]

    @property
    def is_product(self):
        return any(each.startswith(("Conv", "MatMul")) for each in self.operators)


@pytest.fixture
def layers(monkeypatch):
    """Build a program, and list the layers of its plan."""
    trt = import_tensorrt("sm86")
    make_config = trt.Builder.create_builder_config

    class Logger(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self.errors, self.messages = [], []

        def log(self, severity, message):
            self.messages.append(message)
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

    def make_detailed_config(builder):
        config = make_config(builder)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        return config

    logger = Logger()
    monkeypatch.setattr(tensorrt_builder, "make_logger", lambda trt: logger)
    monkeypatch.setattr(trt.Builder, "create_builder_config", make_detailed_config)

    def list_layers(program, spec, folder):
        create_engine("tensorrt").build(program, spec, folder)
        assert check_manifest(program, folder) == {}
        (text,) = (each for each in logger.messages if each.startswith("Layers:"))
        return [parse(line) for line in text.splitlines() if line.startswith("Name: ")]

    return list_layers


def parse(line):
    parts = re.findall(r"(\w+): \[(.*?)\](?=, (?:Constants|Outputs|TacticName): )", line)
    types = {name: re.findall(r"Datatype: (\w+)", text) for name, text in parts}
    kind = re.search(r"LayerType: (\w+)", line)[1]
    operators = re.findall(r"\[ONNX Layer: (.*?)\]", line)
    return Layer(kind, types["Inputs"], types["Constants"], operators)


def list_products(layers):
    """List the kernels that multiply."""
    return [each for each in layers if each.kind in ("correlation", "gemm", "runtime_fusion")]


def test_convolutions_and_linear_layers_multiply_integers(program, layers, tmp_path):
    products = list_products(layers(program, INT8, tmp_path))
    assert {each.kind for each in products} == {"correlation", "gemm"}
    assert all(each.inputs == ["Int8"] for each in products), products
    assert all(each.constants[0] == "Int8" for each in products), products
    multiplied = {name for each in products for name in each.operators}
    assert {"Conv.0", "MatMul.0", "MatMul.1", "MatMul.2"} <= multiplied


def test_what_is_not_quantized_is_in_bf16(program, layers, tmp_path):
    skip = replace(program.quantization, skip=frozenset(["conv", "second"]))
    found = list_products(layers(replace(program, quantization=skip), INT8, tmp_path))
    types = {each.inputs[0] for each in found}
    assert types == {"BFloat16", "Int8"}
    convolution = next(each for each in found if "Conv.0" in each.operators)
    assert convolution.inputs[0] == "BFloat16"
    assert sum(each.inputs == ["Int8"] for each in found) == 2, "first and out"


def test_weights_alone_are_in_eight_bits(program, layers, tmp_path):
    weights_only = replace(program, quantization=None)
    found = layers(weights_only, replace(INT8, precision="int8-weights"), tmp_path)
    products = list_products(found)
    assert {name for each in products for name in each.inputs} == {"BFloat16"}
    assert sum("Int8" in each.constants for each in found) == len(LAYERS)


def test_without_calibration_there_is_no_plan(program, tmp_path):
    with pytest.raises(EngineError, match="not calibrated") as caught:
        create_engine("tensorrt").build(replace(program, quantization=None), INT8, tmp_path)
    assert "quantize" in caught.value.fix
    assert not (tmp_path / PLAN_FILE).exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd1 unet", "sdxl unet", "vae decoder", "sd1 text encoder"])
def test_every_kind_of_component_is_built_in_int8(layers, name, tmp_path):
    program = COMPONENTS[name].program(name.replace(" ", "_"))
    weights = [each for each, _ in program.layer.named_parameters() if each.endswith(".weight")]
    names = [each.removesuffix(".weight") for each in weights]
    quantization = Quantization(dict.fromkeys(names, Range(-4, 4)))
    found = layers(replace(program, quantization=quantization), INT8, tmp_path)
    products = [each for each in list_products(found) if each.is_product]
    integers = [each for each in products if each.inputs[:1] == ["Int8"]]
    assert len(integers) > 5
    floats = [each for each in products if "Int8" not in each.inputs]
    assert all("MatMul" in str(each.operators) for each in floats), "attention"
