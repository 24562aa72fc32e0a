"""The passes that components get where none are asked for."""

import pytest
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.cli.result import describe_component
from fastdeploy_diffusion.engines.base import PayingPasses
from fastdeploy_diffusion.engines.onnxruntime import ONNXRuntimeEngine
from fastdeploy_diffusion.engines.placement import FallbackWarning
from fastdeploy_diffusion.errors import AccuracyError, PassError
from fastdeploy_diffusion.images import read_metadata
from fastdeploy_diffusion.passes.graph.fuse_silu import FuseSiLU
from fastdeploy_diffusion.passes.graph_pass import GraphRule
from fastdeploy_diffusion.passes.layer.merge_projections import MergeKV
from fastdeploy_diffusion.passes.user_passes import PassWarning
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


REQUEST = {"height": 16, "width": 16, "num_inference_steps": 1, "seed": 3}


class Bend(GraphRule):
    """Takes SiLU for another function."""

    def pattern(self, op, x):
        return op.Mul(x, op.Sigmoid(x))

    def rewrite(self, op, x):
        return op.Mul(x, op.Sigmoid(op.Add(x, x)))


@pytest.fixture
def broken(open_pipeline, monkeypatch):
    """Of three default passes, one fails and one changes the numbers."""

    def fail(self, layer):
        raise AttributeError("norm4")

    monkeypatch.setattr(MergeKV, "rewrite", fail)
    monkeypatch.setattr(FuseSiLU, "make_rules", lambda self, dialect: [Bend()])
    names = ("merge-qkv", "merge-kv", "fuse-silu")
    paying = tuple(PayingPasses(each, names, role="denoiser") for each in ("fp32", "fp16"))
    monkeypatch.setattr(ONNXRuntimeEngine, "paying_passes", paying)
    return open_pipeline


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_fails_of_them_is_left_out(broken, tmp_path, precision):
    options = {"cache": True, "cache_dir": tmp_path, "denoiser": {"precision": precision}}
    with broken(**options) as pipeline:
        with pytest.warns(PassWarning) as said:
            picture = pipeline.text_to_image("a cat", **REQUEST)
        report = pipeline.report.components[1]
        listed = name_passes(pipeline, 16, 16)["denoiser"]
    failed, bent = (str(each.message) for each in said if each.category is PassWarning)
    start = "denoiser: the default pass {0} is left out: the pass {0} "
    assert failed.startswith(start.format("merge-kv") + "failed on UNet2D")
    assert bent.startswith(start.format("fuse-silu") + "fails its check on denoiser: ")
    # Neither the precision nor the pass that is right has to give way.
    assert (report.precision, report.fallback) == (precision, None)
    assert (tuple(report.passes), listed) == (("merge-qkv",), ("merge-qkv",))
    assert report.left_out.keys() == {"merge-kv", "fuse-silu"}
    assert read_metadata(picture)["run"]["components"]["denoiser"]["left_out"] == report.left_out
    assert "without merge-kv, fuse-silu: a failed check" in describe_component(report)[-1]

    # The next start says so, and does not fail first.
    with pytest.warns(PassWarning, match="is left out: earlier: the pass") as said:
        pipeline = broken(**options)
    assert len(said) == 2
    with pipeline:
        assert pipeline.report.components[1].left_out == report.left_out
        assert pipeline.build(16, 16).components[1].cached


def test_what_fails_and_was_asked_for_is_an_error(broken):
    with (
        broken(passes=["merge-qkv", "merge-kv"]) as pipeline,
        pytest.raises(PassError, match="the pass merge-kv failed on UNet2D"),
    ):
        pipeline.build(16, 16)
