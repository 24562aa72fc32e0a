"""What a block costs in int8 is what a build changes in which it alone is in int8."""

from types import SimpleNamespace

import numpy as np
import pytest
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.compiler.int8_part import Part, name_block
from fastdeploy_diffusion.compiler.quantizing import open_trials
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.pipelines.opening import open_pipeline
from fastdeploy_diffusion.quantization import Quantization

_ENGINES = ("openvino", "onnxruntime")


@pytest.fixture(params=_ENGINES)
def build(request, tmp_path):
    support = create_engine(request.param).supports(BuildSpec(Device("cpu"), "int8"))
    if not support.ok:
        pytest.skip(support.reason)
    config = DiffusionConfig(
        model_path=write_tiny_sd(tmp_path / "model"),
        cache_dir=tmp_path / "cache",
        engine=request.param,
        denoiser={"precision": "int8"},
    )
    with open_pipeline(config) as pipeline:
        pipeline.component("denoiser").quantization = Quantization()
        yield next(each for each in pipeline.plan_builds(16, 16) if each.name == "denoiser")


def test_the_cost_of_a_block_is_that_of_a_build_with_it_alone_in_int8(build, watch):
    calls = [build.draw_feeds()]
    with open_trials(build) as trials:
        part = Part(
            SimpleNamespace(name="denoiser"), trials, SimpleNamespace(feeds=lambda name: calls), 2
        )
        part.set_ranges(trials.observe(calls))
        blocks = {each.block: each.layers for each in part.blocks}
        watch.clear()
        part.measure_costs(lambda *_: None)
        assert len(watch.loaded) == 1, "all blocks are measured by one session"
        assert {each.block: each.layers for each in part.blocks} == blocks
        assert all(each.error > 0 for each in part.blocks)

        def run(skip):
            with trials.start(Quantization(part.ranges, frozenset(skip))) as session:
                return next(iter(session.run(**calls[0]).values()))

        exact = run(part.ranges)
        for each in (part.blocks[0], part.blocks[len(blocks) // 2]):
            others = {layer for layer in part.ranges if name_block(layer) != each.block}
            change = run(others | part.sensitive) - exact
            wanted = np.sqrt(np.square(change).sum() / np.square(exact).sum())
            # Engines fuse what is in floating point in other ways, in bf16 with other rounding.
            assert each.error == pytest.approx(wanted, rel=0.2), each.block
