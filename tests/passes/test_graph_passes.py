"""Graph passes on exported components: counts of the config, the same numbers, and only once."""

import functools

import pytest
from component_programs import COMPONENTS
from engine_programs import CASES
from graph_checks import (
    RUNS,
    draw_feeds,
    export,
    list_interface,
    list_operators,
    relative_error,
    rewrite,
    run_onnxruntime,
)

from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.passes.graph_pass import GraphPass
from fastdeploy_diffusion.passes.registry import make_all_passes

# What is compiled has tests of its own: `test_native_attention`.
PASSES = [each for each in make_all_passes() if isinstance(each, GraphPass) and not each.is_native]
# By component, in the order of PASSES: attention, GroupNorm with and without SiLU and both, nearest
# upsampling, GEGLU, GELU, SiLU, rotary embedding, RMSNorm, LayerNorm with modulation, GELU with
# tanh.
COUNTS = {
    "sd2 unet": [14, 23, 7, 30, 2, 7, 7, 35, 0, 0, 0, 0],
    "sd1 text encoder": [2, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0],
    "sdxl text encoder": [2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0],
    "vae decoder": [1, 17, 1, 18, 2, 0, 0, 17, 0, 0, 0, 0],
    "vae encoder": [1, 11, 1, 12, 0, 0, 0, 11, 0, 0, 0, 0],
    "flux transformer": [4, 0, 0, 0, 0, 0, 0, 4, 8, 12, 11, 6],
    "t5 encoder": [2, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 2],
}
REFUSED = {
    Dialect.MICROSOFT: ("fuse-group-norm-silu", "fuse-group-norm", "channel-group-norm"),
    Dialect.STANDARD: ("fuse-adaptive-norm",),
}
GONE = {
    Dialect.STANDARD: {"Softmax", "InstanceNormalization", "Erf", "Sigmoid", "Tanh", "Sqrt"},
    Dialect.MICROSOFT: {"Softmax", "Erf", "Sigmoid", "Tanh"},
}


@functools.cache
def export_component(name):
    return export(COMPONENTS[name].program(name))


@functools.cache
def export_block():
    return export(CASES["attention"].program("block"))


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize(
    "component",
    [pytest.param(each, marks=[pytest.mark.slow] * ("unet" in each)) for each in COUNTS],
)
def test_all_together_fire_as_often_as_the_config_says(component, dialect):
    graph = export_component(component)
    rewritten, results = rewrite(graph, PASSES, dialect)
    refused = REFUSED.get(dialect, ())
    for each, result, count in zip(PASSES, results, COUNTS[component], strict=True):
        # Upsampling depends on the passes before.
        assert each.expect(COMPONENTS[component].make()) in (None, count)
        assert bool(each.refuse(dialect)) == (each.name in refused)
        assert result.count == (0 if each.name in refused else count)
        assert len(result.skipped) == count - result.count
    assert list_interface(rewritten) == list_interface(graph)
    assert not rewritten.graph.initializer
    assert not GONE[dialect] & set(list_operators(rewritten))

    # Flux cuts vectors of modulation out of one; the converter, the widths of a border that is
    # wider on one side.
    has_splits = component in ("flux transformer", "vae encoder")
    assert "Split" not in list_operators(rewritten) or has_splits

    generators = COMPONENTS[component].generators
    feeds = draw_feeds(graph, seed=sum(COUNTS[component]), generators=generators)
    wanted = run_onnxruntime(graph, feeds)
    for run in RUNS[dialect]:
        assert relative_error(run(rewritten, feeds), wanted) <= 1e-5

    again, results = rewrite(rewritten, PASSES, dialect)
    assert [result.count for result in results] == [0] * len(PASSES)
    assert sorted(list_operators(again)) == sorted(list_operators(rewritten))


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("each", PASSES, ids=str)
def test_each_alone_fires_as_often_and_keeps_the_numbers(each, dialect):
    components = ("vae decoder", "flux transformer")
    counts = {name: COUNTS[name][PASSES.index(each)] for name in components}
    component = next((name for name in components if counts[name]), None)
    # Or a transformer block; nothing is known of its config.
    graph = export_component(component) if component else export_block()
    rewritten, (result,) = rewrite(graph, [each], dialect)
    assert result.count == (0 if each.refuse(dialect) else counts.get(component, 1))
    generators = COMPONENTS[component].generators if component else {}
    feeds = draw_feeds(graph, seed=1, batch=1, generators=generators)
    wanted = run_onnxruntime(graph, feeds)
    for run in RUNS[dialect]:
        assert relative_error(run(rewritten, feeds), wanted) <= 1e-5
