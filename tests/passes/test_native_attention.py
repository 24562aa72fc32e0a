"""Attention by the native kernel: counts, nearest misses, numbers, and together with all passes."""

import ctypes
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import openvino
import pytest
from component_programs import COMPONENTS
from graph_checks import (
    draw_feeds,
    list_interface,
    list_operators,
    parse,
    relative_error,
    rewrite,
    run_onnxruntime,
    run_openvino,
)
from test_graph_passes import PASSES, export_component
from test_graph_rules import ATTENTION, BIASED, CAUSAL

from fastdeploy_diffusion.engines import onnxruntime_builder, openvino_builder
from fastdeploy_diffusion.engines.onnxruntime import ONNXRuntimeEngine
from fastdeploy_diffusion.engines.openvino import OpenVINOEngine
from fastdeploy_diffusion.engines.openvino_attention import narrow_attention
from fastdeploy_diffusion.native.library import explain_missing_compiler
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.passes.graph.fuse_attention import FuseAttention
from fastdeploy_diffusion.passes.graph.native_attention import NativeAttention

NATIVE = "fastdeploy_diffusion:NativeAttention"
COUNTS = {
    "sd2 unet": 14,
    "sd1 text encoder": 2,
    "sdxl text encoder": 2,
    "vae decoder": 1,
    "vae encoder": 1,
    "flux transformer": 4,
    "t5 encoder": 2,
}
KINDS = {"plain": ATTENTION, "causal": CAUSAL, "biased": BIASED}


class Runtime(NamedTuple):
    """An engine with the operator: what it reads, and how it runs a graph."""

    operators: Path
    dialect: Dialect
    run: Callable[..., Any]


def compile_operators(engine, builder, tmp_path_factory):
    if missing := explain_missing_compiler():
        pytest.skip(missing)
    file = tmp_path_factory.mktemp(engine.name) / "operators.so"
    builder.compile_operators(engine, file)
    return file


@pytest.fixture(scope="module")
def for_openvino(tmp_path_factory):
    operators = compile_operators(OpenVINOEngine(), openvino_builder, tmp_path_factory)
    return Runtime(operators, Dialect.STANDARD, partial(run_openvino, operators=operators))


@pytest.fixture(scope="module")
def for_onnxruntime(tmp_path_factory):
    operators = compile_operators(ONNXRuntimeEngine(), onnxruntime_builder, tmp_path_factory)
    return Runtime(operators, Dialect.MICROSOFT, partial(run_onnxruntime, operators=operators))


@pytest.fixture(params=["openvino", "onnxruntime"])
def runtime(request):
    return request.getfixturevalue(f"for_{request.param}")


@pytest.mark.parametrize(
    "component",
    [pytest.param(each, marks=[pytest.mark.slow] * ("unet" in each)) for each in COUNTS],
)
@pytest.mark.parametrize("others", [[], PASSES], ids=["alone", "after all others"])
def test_it_fires_as_often_as_the_config_says_and_keeps_the_numbers(component, others, runtime):
    graph, case = export_component(component), COMPONENTS[component]
    rewritten, (*_, result) = rewrite(graph, [*others, NativeAttention()], runtime.dialect)
    assert (result.count, result.skipped) == (COUNTS[component], {})
    assert NativeAttention().expect(case.make()) == COUNTS[component]
    assert list_operators(rewritten).count(NATIVE) == COUNTS[component]
    assert not {"Softmax", "Attention", "com.microsoft:MultiHeadAttention"} & set(
        list_operators(rewritten)
    )
    assert list_interface(rewritten) == list_interface(graph)

    feeds = draw_feeds(graph, seed=COUNTS[component], generators=case.generators)
    wanted = run_onnxruntime(graph, feeds)
    assert relative_error(runtime.run(rewritten, feeds), wanted) <= 1e-5

    again, (result,) = rewrite(rewritten, [NativeAttention()], runtime.dialect)
    assert result.count == 0
    assert sorted(list_operators(again)) == sorted(list_operators(rewritten))


@pytest.mark.parametrize("before", [[], [FuseAttention()]], ids=["separate", "fused"])
@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("text", KINDS.values(), ids=KINDS)
def test_every_kind_becomes_the_operator_in_every_dialect(text, dialect, before):
    rewritten, (*_, result) = rewrite(parse(text), [*before, NativeAttention()], dialect)
    assert (result.count, result.skipped) == (1, {})
    kept = {"Reshape", "Constant"} if before and dialect is Dialect.MICROSOFT else set()
    assert set(list_operators(rewritten)) - kept == {NATIVE}


@pytest.mark.parametrize("text", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("heads", [1, 5])
@pytest.mark.parametrize(("tokens", "dim"), [(1, 3), (77, 40), (300, 17)])
def test_numbers_stay_in_every_size(text, heads, tokens, dim, runtime):
    text = text.replace("H", "3").replace("[2,5,3,4]", f"[2,{tokens},{heads},{dim}]")
    text = text.replace("[2,7,3,4]", f"[2,9,{heads},{dim}]").replace(
        "[1,3,5,7]", f"[1,{heads},{tokens},9]"
    )
    graph = parse(text)
    rewritten, _ = rewrite(graph, [NativeAttention()], runtime.dialect)
    feeds = draw_feeds(graph, seed=tokens)
    wanted = run_onnxruntime(graph, feeds)
    assert relative_error(runtime.run(rewritten, feeds), wanted) <= 1e-5


def test_heads_that_lie_before_tokens_are_swapped(runtime):
    """As `fuse-rotary` leaves them."""
    graph = parse(
        ATTENTION.replace("float[2,5,3,4] q", "float[2,3,5,4] q").replace(
            "qt = Transpose <perm = [0, 2, 1, 3]> (q)", "qt = Abs (q)"
        )
    )
    rewritten, (result,) = rewrite(graph, [NativeAttention()], runtime.dialect)
    assert (result.count, result.skipped) == (1, {})
    feeds = draw_feeds(graph, seed=4)
    wanted = run_onnxruntime(graph, feeds)
    assert relative_error(runtime.run(rewritten, feeds), wanted) <= 1e-5


MISSES = {
    "another transposition": ("perm = [0, 2, 1, 3]> (o)", "perm = [0, 2, 3, 1]> (o)"),
    "another axis": ("Softmax <axis = -1>", "Softmax <axis = 2>"),
    "no softmax": ("Softmax <axis = -1>", "LogSoftmax <axis = -1>"),
}


@pytest.mark.parametrize(("old", "new"), MISSES.values(), ids=MISSES)
def test_the_nearest_miss_is_left_alone(old, new):
    assert old in ATTENTION
    graph = parse(ATTENTION.replace(old, new))
    rewritten, (result,) = rewrite(graph, [NativeAttention()], Dialect.STANDARD)
    assert (result.count, result.skipped) == (0, {})
    assert list_operators(rewritten) == list_operators(graph)


def test_what_cannot_be_rewritten_is_skipped_with_a_reason():
    computed = parse(ATTENTION.replace("Mul (qt, scale)", "Mul (qt, s)"))
    _, (result,) = rewrite(computed, [NativeAttention()], Dialect.STANDARD)
    assert (result.count, result.skipped) == (0, {"y": "its scale is no known number"})
    shared = parse(BIASED.replace("[1,3,5,7] bias", "[5,7] bias"))
    _, (result,) = rewrite(shared, [NativeAttention()], Dialect.STANDARD)
    assert (result.count, result.skipped) == (0, {"y": "its bias is not one for each head"})


def test_half_precision_goes_in_and_out_without_a_detour(for_openvino):
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no instructions for bf16")
    text = ATTENTION.replace("[2,5,3,4]", "[2,65,3,40]").replace("[2,7,3,4]", "[2,70,3,40]")
    graph = parse(text)
    rewritten, _ = rewrite(graph, [NativeAttention()], Dialect.STANDARD)
    core = openvino.Core()
    core.add_extension(str(for_openvino.operators))
    model = core.read_model(rewritten.SerializeToString())
    narrow_attention(model)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    nodes = [each.get_rt_info() for each in compiled.get_runtime_model().get_ordered_ops()]
    (attention,) = [each for each in nodes if each["layerType"].astype(str) == "Reference"]
    assert attention["outputPrecisions"].astype(str) == "bf16"
    feeds = draw_feeds(graph, seed=0)
    (wanted,) = run_onnxruntime(graph, feeds)
    found = compiled({each: feeds[each.any_name] for each in compiled.inputs})[0]
    assert 1e-6 < np.abs(found - wanted).max() / np.abs(wanted).max() < 2e-2


def test_bits_do_not_depend_on_threads_of_onnxruntime(for_onnxruntime):
    text = ATTENTION.replace("[2,5,3,4]", "[2,300,3,40]").replace("[2,7,3,4]", "[2,500,3,40]")
    graph, _ = rewrite(parse(text), [NativeAttention()], Dialect.MICROSOFT)
    feeds = draw_feeds(graph, seed=0)
    (once,), (again,) = (for_onnxruntime.run(graph, feeds, threads=count) for count in (1, 3))
    assert np.array_equal(once, again)


def make_operator(kind="float", causal=0):
    """The operator alone, with sizes that are known when it runs."""
    names = ("q", "k", "v", "bias")
    inputs = ", ".join(
        f"{kind}[{','.join(f'{each}{axis}' for axis in range(4))}] {each}" for each in names
    )
    return onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 17, "fastdeploy_diffusion" : 1]>
        alone ({inputs}) => ({kind}[b,n,h,d] y) {{
          y = fastdeploy_diffusion.NativeAttention
              <scale: float = 0.5, is_causal: int = {causal}> (q, k, v, bias)
        }}"""
    )


RIGHT = {"q": (2, 5, 3, 4), "k": (2, 7, 3, 4), "v": (2, 7, 3, 6), "bias": (1, 3, 1, 7)}
WRONG = {
    "batch": ({"v": (1, 7, 3, 6)}, "differ in batch"),
    "heads": ({"k": (2, 7, 1, 4)}, "differ in heads"),
    "tokens": ({"v": (2, 8, 3, 6)}, "keys and values differ in tokens"),
    "size": ({"k": (2, 7, 3, 6)}, "queries and keys differ in size"),
    "bias": ({"bias": (1, 2, 1, 7)}, "does not broadcast"),
    "no key": ({"k": (2, 0, 3, 4), "v": (2, 0, 3, 6), "bias": (1, 3, 1, 1)}, "status 1"),
}


def draw_sizes(sizes):
    random = np.random.default_rng(0)
    return {name: random.standard_normal(size, np.float32) for name, size in sizes.items()}


def test_values_may_have_another_size_and_a_bias_broadcasts(runtime):
    feeds = draw_sizes(RIGHT)
    (found,) = runtime.run(make_operator(), feeds)
    q, k, v = (feeds[name].swapaxes(1, 2).astype(np.float64) for name in "qkv")
    scores = np.exp(0.5 * q @ k.swapaxes(2, 3) + feeds["bias"])
    wanted = (scores / scores.sum(axis=-1, keepdims=True) @ v).swapaxes(1, 2)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.fixture(
    params=[
        # A worker of tests beside others has one core.
        pytest.param("openvino", marks=pytest.mark.serial),
        "onnxruntime",
    ]
)
def strict_runtime(request):
    """An engine that passes on the errors of operators; OpenVINO loses them on one core."""
    if request.param == "openvino" and len(os.sched_getaffinity(0)) == 1:
        pytest.skip("on one core, OpenVINO loses the errors of operators")
    return request.getfixturevalue(f"for_{request.param}")


@pytest.mark.parametrize(("sizes", "problem"), WRONG.values(), ids=WRONG)
def test_sizes_that_do_not_fit_are_refused(sizes, problem, strict_runtime):
    with pytest.raises(Exception, match=f"NativeAttention.*{problem}"):  # each engine has its own
        strict_runtime.run(make_operator(), draw_sizes({**RIGHT, **sizes}))


def test_a_causal_operator_takes_no_bias(strict_runtime):
    with pytest.raises(Exception, match="causal attention takes no bias"):  # as above
        strict_runtime.run(make_operator(causal=1), draw_sizes(RIGHT))


def test_onnxruntime_refuses_other_types_when_it_loads_the_graph(for_onnxruntime):
    with pytest.raises(Exception, match=r"float16.*NativeAttention.*invalid"):
        for_onnxruntime.run(make_operator("float16"), {})


def test_an_onnxruntime_without_the_interface_is_refused(for_onnxruntime):
    """As one before 1.17 answers: with a table of its own version, and none of a later one."""
    said = []
    make_status = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)(
        lambda code, message: said.append((code, message.decode())) or 1
    )
    table = (ctypes.c_void_p * 1)(ctypes.cast(make_status, ctypes.c_void_p))
    get_table = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)(
        lambda version: ctypes.addressof(table) if version <= 16 else None
    )
    get_version = ctypes.CFUNCTYPE(ctypes.c_void_p)(lambda: ctypes.addressof(older))
    older = ctypes.create_string_buffer(b"1.16.3")
    base = (ctypes.c_void_p * 2)(
        *(ctypes.cast(each, ctypes.c_void_p) for each in (get_table, get_version))
    )
    library = ctypes.CDLL(str(for_onnxruntime.operators))
    library.RegisterCustomOps.restype = ctypes.c_void_p
    assert library.RegisterCustomOps(None, base) == 1
    wanted = "NativeAttention: ONNX Runtime 1.16.3 is older than 1.17, which it needs"
    assert said == [(1, wanted)]
