"""The passes that components get where none are asked for."""

import pytest
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.engines.base import PayingPasses
from fastdeploy_diffusion.engines.onnxruntime import ONNXRuntimeEngine
from fastdeploy_diffusion.engines.placement import FallbackWarning
from fastdeploy_diffusion.errors import AccuracyError
from fastdeploy_diffusion.runtime.program import Signature

PAYING = (
    PayingPasses("fp16", ("merge-qkv", "merge-kv"), role="denoiser"),
    PayingPasses("bf16", ("fuse-silu",)),
    PayingPasses("fp32", ("winograd-4x4", "phase-upsample"), role="vae", pixels=16 * 16),
    PayingPasses("fp32", ("phase-upsample",), role="vae"),
    PayingPasses("fp32", ("merge-kv",), role="denoiser"),
    PayingPasses("fp32", ("merge-qkv",)),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_sd(tmp_path_factory.mktemp("checkpoint") / "model")


@pytest.fixture
def open_pipeline(model, monkeypatch):
    monkeypatch.setattr(ONNXRuntimeEngine, "paying_passes", PAYING)

    def open_(**options):
        choice = {"engine": "onnxruntime", "cache": False, **options}
        return SDPipeline(DiffusionConfig(model_path=model, **choice))

    return open_


def name_passes(pipeline, *size):
    return {
        build.name: tuple(each.name for each in build.passes)
        for build in pipeline.plan_builds(*size)
    }


def test_each_component_gets_those_of_its_kind_and_size(open_pipeline):
    with open_pipeline() as pipeline:
        small, large = (name_passes(pipeline, 32, width) for width in (30, 32))
    assert large == {
        "text_encoder": ("merge-qkv",),
        "denoiser": ("merge-kv",),
        # In the order in which they are applied.
        "vae_decoder": ("phase-upsample", "winograd-4x4"),
    }
    assert small == {**large, "vae_decoder": ("phase-upsample",)}


def test_open_sizes_get_those_of_all_sizes(open_pipeline):
    with open_pipeline(enable_dynamic_shape=True) as pipeline:
        assert name_passes(pipeline)["vae_decoder"] == ("phase-upsample",)


def test_a_list_is_for_all_components_and_sizes(open_pipeline):
    with open_pipeline(passes=["winograd-4x4"]) as pipeline:
        assert set(name_passes(pipeline, 16, 16).values()) == {("winograd-4x4",)}


def test_a_safer_precision_has_its_own(open_pipeline):
    with open_pipeline(precision="fp16") as pipeline:
        component = pipeline.component("denoiser")
        assert component.placer.name_passes() == ("merge-qkv", "merge-kv")
        with pytest.warns(FallbackWarning, match="too far"):
            assert component.placer.retreat(AccuracyError("too far", relative_error=1.0))
        assert component.placement.spec.precision == "bf16"
        assert component.placer.name_passes(Signature((), ())) == ("fuse-silu",)
