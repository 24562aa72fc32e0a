"""Attention by the native kernel: counts, nearest misses, numbers, and together with all passes."""

import numpy as np
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

from fastdeploy_diffusion.engines.openvino import OpenVINOEngine
from fastdeploy_diffusion.engines.openvino_attention import narrow_attention
from fastdeploy_diffusion.engines.openvino_builder import compile_operators
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
    "flux transformer": 4,
    "t5 encoder": 2,
}
KINDS = {"plain": ATTENTION, "causal": CAUSAL, "biased": BIASED}


@pytest.fixture(scope="module")
def operators(tmp_path_factory):
    """The library of operators for OpenVINO."""
    if missing := explain_missing_compiler():
        pytest.skip(missing)
    file = tmp_path_factory.mktemp("operators") / "operators.so"
    compile_operators(OpenVINOEngine(), file)
    return file


@pytest.mark.parametrize(
    "component",
    [pytest.param(each, marks=[pytest.mark.slow] * ("unet" in each)) for each in COUNTS],
)
@pytest.mark.parametrize("others", [[], PASSES], ids=["alone", "after all others"])
def test_it_fires_as_often_as_the_config_says_and_keeps_the_numbers(component, others, operators):
    graph, case = export_component(component), COMPONENTS[component]
    rewritten, (*_, result) = rewrite(graph, [*others, NativeAttention()], Dialect.STANDARD)
    assert (result.count, result.skipped) == (COUNTS[component], {})
    assert NativeAttention().expect(case.make()) == COUNTS[component]
    assert list_operators(rewritten).count(NATIVE) == COUNTS[component]
    assert not {"Softmax", "Attention"} & set(list_operators(rewritten))
    assert list_interface(rewritten) == list_interface(graph)

    feeds = draw_feeds(graph, seed=COUNTS[component], generators=case.generators)
    wanted = run_onnxruntime(graph, feeds)
    assert relative_error(run_openvino(rewritten, feeds, operators), wanted) <= 1e-5

    again, (result,) = rewrite(rewritten, [NativeAttention()], Dialect.STANDARD)
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
def test_numbers_stay_in_every_size(text, heads, tokens, dim, operators):
    text = text.replace("H", "3").replace("[2,5,3,4]", f"[2,{tokens},{heads},{dim}]")
    text = text.replace("[2,7,3,4]", f"[2,9,{heads},{dim}]").replace(
        "[1,3,5,7]", f"[1,{heads},{tokens},9]"
    )
    graph = parse(text)
    rewritten, _ = rewrite(graph, [NativeAttention()], Dialect.STANDARD)
    feeds = draw_feeds(graph, seed=tokens)
    wanted = run_onnxruntime(graph, feeds)
    assert relative_error(run_openvino(rewritten, feeds, operators), wanted) <= 1e-5


def test_heads_that_lie_before_tokens_are_swapped(operators):
    """As `fuse-rotary` leaves them."""
    graph = parse(
        ATTENTION.replace("float[2,5,3,4] q", "float[2,3,5,4] q").replace(
            "qt = Transpose <perm = [0, 2, 1, 3]> (q)", "qt = Abs (q)"
        )
    )
    rewritten, (result,) = rewrite(graph, [NativeAttention()], Dialect.STANDARD)
    assert (result.count, result.skipped) == (1, {})
    feeds = draw_feeds(graph, seed=4)
    wanted = run_onnxruntime(graph, feeds)
    assert relative_error(run_openvino(rewritten, feeds, operators), wanted) <= 1e-5


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


def test_half_precision_goes_in_and_out_without_a_detour(operators):
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no instructions for bf16")
    text = ATTENTION.replace("[2,5,3,4]", "[2,65,3,40]").replace("[2,7,3,4]", "[2,70,3,40]")
    graph = parse(text)
    rewritten, _ = rewrite(graph, [NativeAttention()], Dialect.STANDARD)
    core = openvino.Core()
    core.add_extension(str(operators))
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
