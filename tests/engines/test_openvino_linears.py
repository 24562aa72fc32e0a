"""Large linear layers run in oneDNN's kernels, small ones in MLAS'; their numbers are the same."""

import numpy as np
import pytest
from engine_programs import Case, draw_feeds, float_spec
from runnable import spec_for

from fastdeploy_diffusion.engines.openvino_linears import prefer_onednn
from fastdeploy_diffusion.engines.paddle_layer import run_layer
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.machine import describe_machine
from fastdeploy_diffusion.paddle_runtime import paddle

openvino = pytest.importorskip("openvino")
HAS_AVX512 = "avx512f" in (describe_machine()["cpu_flags"] or ())
LARGE, SMALL, WIDTH = 2048, 1024, 64


def build_model(rows, inputs, *, bias=True, half=False):
    """A linear layer with random weights as a model of OpenVINO."""
    random, op = np.random.default_rng(rows), openvino.opset8
    tokens = op.parameter([1, rows, inputs], np.float32)
    weights = random.standard_normal((WIDTH, inputs), np.float32)
    constant = op.constant(weights.astype(np.float16) if half else weights)
    out = op.matmul(tokens, op.convert(constant, np.float32) if half else constant, False, True)
    if bias:
        out = op.add(out, op.constant(random.standard_normal((1, 1, WIDTH), np.float32)))
    return openvino.Model([out], [tokens])


def compile_model(model):
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2}
    return openvino.Core().compile_model(model, "CPU", settings)


def name_kernels(compiled):
    found = [each.get_rt_info() for each in compiled.get_runtime_model().get_ops()]
    kinds = [each["primitiveType"].astype(str) for each in found]
    return [kind for kind in kinds if "gemm" in kind or "brgconv" in kind]


@pytest.mark.skipif(not HAS_AVX512, reason="this CPU has no AVX-512: nothing is changed")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_large_layers_leave_mlas_and_keep_their_numbers(bias, half):
    before = compile_model(build_model(256, LARGE, bias=bias, half=half))
    prefer_onednn(model := build_model(256, LARGE, bias=bias, half=half))
    after = compile_model(model)
    assert "mlas" in " ".join(name_kernels(before))
    assert name_kernels(after) == ["brgemm_avx512_f32"]
    tokens = np.random.default_rng(7).standard_normal((1, 256, LARGE), np.float32)
    tokens[0, 3, 5], tokens[0, 4, 6] = np.inf, np.nan
    plain, given = before(tokens)[0], after(tokens)[0]
    assert np.isinf(plain[0, 3]).all()
    assert np.isnan(plain[0, 4]).all()
    np.testing.assert_allclose(given, plain, rtol=0, atol=1e-5 * np.nanmax(np.abs(plain[0, 5:])))


@pytest.mark.parametrize(("rows", "inputs"), [(255, LARGE), (256, LARGE - 1), (8192, SMALL)])
def test_others_stay_as_they_are(rows, inputs):
    model = build_model(rows, inputs)
    before = [each.get_type_name() for each in model.get_ordered_ops()]
    prefer_onednn(model)
    assert [each.get_type_name() for each in model.get_ordered_ops()] == before


def test_a_product_of_two_inputs_and_one_of_open_size_stay_as_they_are():
    op = openvino.opset8
    first, second = (op.parameter([1, LARGE, LARGE], np.float32) for _ in range(2))
    rows = op.parameter([1, -1, LARGE], np.float32)
    weights = op.constant(np.zeros((LARGE, WIDTH), np.float32))
    products = [op.matmul(first, second, False, False), op.matmul(rows, weights, False, False)]
    model = openvino.Model(products, [first, second, rows])
    prefer_onednn(model)
    assert "PRelu" not in {each.get_type_name() for each in model.get_ops()}


def test_a_session_has_the_layers_numbers(tmp_path):
    def make():
        linear = paddle.nn.Linear
        layers = linear(LARGE, WIDTH), paddle.nn.GELU(), linear(WIDTH, WIDTH, bias_attr=False)
        return paddle.nn.Sequential(*layers)

    tokens, out = float_spec("tokens", None, 128, LARGE), float_spec("out", None, 128, WIDTH)
    case, spec = Case(make, (tokens,), (out,)), spec_for("openvino", threads=2)
    program = case.program("long")
    engine = create_engine("openvino")
    engine.build(program, spec, tmp_path)
    with engine.load(program, spec, tmp_path) as session:
        for batch in (1, 3):  # fewer rows than pay, and more
            feeds = draw_feeds(case, batch, free=batch)
            wanted, given = run_layer(program, feeds)["out"], session.run(**feeds)["out"]
            np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
