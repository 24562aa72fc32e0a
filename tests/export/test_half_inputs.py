"""Inputs in half precision are those of the graph, and engines take them as they are."""

import ml_dtypes  # noqa: F401  # numpy knows bfloat16 from here on
import numpy as np
import onnx
import pytest

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.registry import create_engine, engine_names
from fastdeploy_diffusion.export.onnx import export_onnx
from fastdeploy_diffusion.paddle_runtime import paddle
from fastdeploy_diffusion.runtime.program import Program, TensorSpec

ENGINES = [name for name in engine_names() if create_engine(name).takes_weights]
TYPES = {"float16": onnx.TensorProto.FLOAT16, "bfloat16": onnx.TensorProto.BFLOAT16}


class Product(paddle.nn.Layer):
    def forward(self, rows, weight, bias):
        return rows @ weight.transpose([1, 0]) + bias + weight[:, 0]


def make_program(dtype):
    inputs = (
        TensorSpec("rows", (None, 3), "float32"),
        TensorSpec("weight", (4, 3), dtype),
        TensorSpec("bias", (4,), "float32"),
    )
    layer = Product()
    layer.eval()
    return Program("product", layer, inputs, (TensorSpec("result", (None, 4), "float32"),))


@pytest.mark.parametrize("dtype", TYPES)
def test_every_engine_that_takes_weights(dtype, tmp_path):
    program = make_program(dtype)
    graph = onnx.load(str(export_onnx(program, tmp_path))).graph
    kinds = {each.name: each.type.tensor_type.elem_type for each in graph.input}
    assert kinds == {"rows": 1, "weight": TYPES[dtype], "bias": 1}
    assert [node.op_type for node in graph.node].count("Cast") == 1
    random = np.random.default_rng(0)
    feeds = {
        spec.name: random.standard_normal([size or 2 for size in spec.shape]).astype(spec.dtype)
        for spec in program.inputs
    }
    weight = feeds["weight"].astype(np.float32)
    wanted = feeds["rows"] @ weight.T + feeds["bias"] + weight[:, 0]
    for name in ENGINES:
        engine, spec = create_engine(name), BuildSpec(Device("cpu"), threads=1)
        engine.build(program, spec, tmp_path / name)
        with engine.load(program, spec, tmp_path / name) as session:
            given = session.run(**feeds)["result"]
            np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-5)
            # Bound once, or in memory that something else was in before: no copy is kept.
            session.bind(weight=feeds["weight"])
            rest = {name: feeds[name] for name in ("rows", "bias")}
            np.testing.assert_array_equal(session.run(**rest)["result"], given)
            session.bind()
            feeds["weight"][...] *= 2
            doubled = session.run(**feeds)["result"]
            feeds["weight"][...] /= 2
            np.testing.assert_allclose(
                doubled, wanted + wanted - feeds["bias"], rtol=1e-5, atol=1e-5
            )
