"""Rooflines: limits follow from peaks and counts; a component is counted as it runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.benchmark.report.table import (
    OPERATOR_HEADINGS,
    ROOFLINE_HEADINGS,
    describe_roofline,
    list_operators,
    list_rooflines,
)
from fastdeploy_diffusion.benchmark.result import read_result
from fastdeploy_diffusion.benchmark.roofline.peaks import measure_copy
from fastdeploy_diffusion.benchmark.roofline.roofline import Peaks
from fastdeploy_diffusion.benchmark.roofline.survey import count_component
from fastdeploy_diffusion.passes.registry import choose_passes

RECORDED = read_result(Path(__file__).with_name("recorded.json"))


def test_the_limit_is_the_slower_of_computing_and_waiting():
    peaks = Peaks(matrix_product=5e9, convolution=8e9, bandwidth=2e9)
    update = {"peaks": peaks, "flops": 16e9, "moved_bytes": 2e9, "seconds": (8.0, 4.0, 4.0)}
    computes = RECORDED.rooflines[0].model_copy(update=update)
    assert (computes.limit, computes.share, computes.intensity) == (2.0, 0.5, 8.0)
    assert computes.model_copy(update={"moved_bytes": 6e9}).limit == 3.0
    unknown = peaks.model_copy(update={"bandwidth": None})
    assert computes.model_copy(update={"moved_bytes": 6e9, "peaks": unknown}).limit == 2.0


def test_every_component_and_operator_is_told():
    found = RECORDED.rooflines
    assert [each.component for each in found] == ["text_encoder", "denoiser", "vae_decoder"]
    lines = list_rooflines(found)
    assert {len(line) for line in lines} == {len(ROOFLINE_HEADINGS)}
    operators = list_operators(found)
    assert len(operators) == 30
    assert {len(line) for line in operators} == {len(OPERATOR_HEADINGS)}
    for each in found:
        slowest = next(iter(each.kinds))
        assert f"most time in {slowest}" in describe_roofline(each)
    silent = found[0].model_copy(update={"operators": (), "kinds": {}, "unprofiled": "no"})
    assert "operators: no" in describe_roofline(silent)
    assert list_operators([silent]) == []


def test_memory_is_copied_at_a_possible_speed():
    assert 1e8 < measure_copy(2) < 1e13


def test_a_component_is_counted_as_it_runs(tiny_sd1):
    """What is split counts only its step, and a batch counts as often."""
    pipeline = SDPipeline(DiffusionConfig(model_path=tiny_sd1, engine="paddle-eager"))
    _, denoiser, _ = pipeline.plan_builds(32, 32)
    feeds = denoiser.draw_feeds()
    plain, same = count_component(denoiser, feeds)
    assert plain == same
    split = replace(denoiser, passes=tuple(choose_passes(["hoist-invariants"])))
    before, step = count_component(split, feeds)
    assert before == plain
    assert 0.5 * plain.flops < step.flops < plain.flops
    rows = denoiser.sizes["batch"]
    _, twice = count_component(denoiser, replace(denoiser, sizes={"batch": 2 * rows}).draw_feeds())
    assert twice.flops == pytest.approx(2 * plain.flops, rel=1e-6)
