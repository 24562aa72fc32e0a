"""``tune`` measures what can run here, keeps it, and ``auto`` goes by it."""

import itertools
from dataclasses import replace

import pytest
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, FluxPipeline, SDPipeline
from fastdeploy_diffusion.compiler.tuning import tune_component
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import PayingPasses
from fastdeploy_diffusion.engines.placement import FallbackWarning
from fastdeploy_diffusion.engines.plan import (
    Candidate,
    ComponentPlan,
    UnsafePrecision,
    find_plan,
    keep_plan,
    remember_failures,
)
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.errors import CacheError, ConfigError
from fastdeploy_diffusion.native.library import explain_missing_compiler
from fastdeploy_diffusion.predictors.build_cache import open_cache
from fastdeploy_diffusion.runtime.cache import ArtifactCache, CacheWarning

PLAN = ComponentPlan(
    "denoiser",
    {"sample": (2, 4, 8, 8)},
    (
        Candidate("openvino", "fp32", (), 0.5, 1e-6),
        Candidate("openvino", "fp32", ("merge-kv",), 0.4, 1e-6),
        Candidate("openvino", "bf16", refusal="this CPU has no instructions for bf16"),
        Candidate("onnxruntime", "fp32", refusal="onnxruntime is not installed"),
    ),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_sd(tmp_path_factory.mktemp("checkpoint") / "model")


@pytest.fixture
def open_pipeline(model, tmp_path):
    def open_(**options):
        choice = {"engine": "auto", "cache_dir": tmp_path, **options}
        return SDPipeline(DiffusionConfig(model_path=model, **choice))

    return open_


def find_place(pipeline):
    """The cache and the key of the denoiser's plan."""
    cache = open_cache(pipeline.config)
    return cache, pipeline.component("denoiser").placer.make_key(cache)


def test_the_fastest_of_a_precision_is_chosen_and_the_others_are_explained():
    taken = PLAN.choose("fp32", None)
    assert taken == PLAN.candidates[1]
    assert PLAN.choose("fp32", ()) == PLAN.candidates[0]
    assert PLAN.choose("bf16", None) is None
    assert PLAN.explain(taken) == {
        "openvino in fp32": "500 ms, 1.25 times as long",
        "onnxruntime in fp32": "onnxruntime is not installed",
    }


# Roles, and latents' pixels.
SIZES = {
    "text_encoder": ("text_encoder", 0),
    "denoiser": ("denoiser", 16 * 24),
    "vae_decoder": ("vae", 16 * 24),
}


def test_every_engine_is_measured_and_the_fastest_runs_from_then_on(open_pipeline):
    pipeline = open_pipeline()
    assert [each.measured_seconds for each in pipeline.report.components] == [None] * 3
    told = []
    plans = pipeline.tune(32, 48, runs=1, show=lambda *step: told.append(step))
    assert pipeline.find_plans() == tuple(plans)
    tried = [each for plan in plans for each in plan.candidates if each.seconds]
    assert len(told) >= len(tried)
    assert {(done, total) for _, done, total in told} == {(0, 3), (1, 3), (2, 3)}
    assert told[0][0].startswith("text_encoder: openvino in fp32, no passes")
    assert [plan.component for plan in plans] == ["text_encoder", "denoiser", "vae_decoder"]
    # A latent for two pixels each way; both of guidance.
    assert plans[1].shapes["sample"] == (2, 4, 16, 24)
    for plan in plans:
        for engine in ("openvino", "onnxruntime", "paddle"):
            tried = [each for each in plan.candidates if each.engine == engine]
            measured = [each for each in tried if each.precision == "fp32"]
            sets = [()]
            role, pixels = SIZES[plan.component]
            for close in (False, True):
                names = create_engine(engine).name_default_passes("fp32", role, pixels, close=close)
                if explain_missing_compiler():
                    names = tuple(name for name in names if name != "native-attention")
                sets.append(names)
            assert [each.passes for each in measured] == list(dict.fromkeys(sets))
            assert all(each.seconds > 0 and each.relative_error <= 1e-4 for each in measured)
            # Whatever a precision cannot do here is said.
            assert all(each.refusal for each in tried if each.seconds is None)
    later = open_pipeline()
    for here in (pipeline, later):
        for plan, report in zip(plans, here.report.components, strict=True):
            taken = plan.choose("fp32", None)
            assert (report.engine, report.measured_seconds) == (taken.engine, taken.seconds)
            assert report.passed_over == plan.explain(taken)
    built = later.build(32, 48).components
    assert all(each.cached for each in built)
    for plan, report in zip(plans, built, strict=True):
        assert tuple(report.passes) == plan.choose("fp32", None).passes


class ScriptedClock:
    """Runs that take 1, 9 and 3 seconds; before each three, one that is not timed."""

    def __init__(self):
        self.ticks = itertools.cycle([0, 100, 101, 200, 209, 300, 303])

    def perf_counter(self):
        return next(self.ticks)


def test_the_median_of_the_runs_after_the_first_counts(open_pipeline, monkeypatch, tmp_path):
    build = open_pipeline(engine="paddle-eager").plan_builds(32, 32)[0]
    cache = ArtifactCache(tmp_path, limit=2**30)
    monkeypatch.setattr("fastdeploy_diffusion.compiler.tuning.AUTO_ORDER", {"cpu": ("paddle",)})
    monkeypatch.setattr("fastdeploy_diffusion.compiler.tuning.time", ScriptedClock())
    options = {"passes": (), "cache": cache, "runs": 3, "show": [].append}
    plan = tune_component(build, Device("cpu"), **options)
    measured = [each for each in plan.candidates if each.seconds is not None]
    assert [each.seconds for each in measured] == [3]


def test_passes_that_are_close_are_tried_besides_the_default_ones(
    open_pipeline, monkeypatch, tmp_path
):
    build = open_pipeline(engine="paddle-eager").plan_builds(32, 32)[1]
    monkeypatch.setattr("fastdeploy_diffusion.compiler.tuning.AUTO_ORDER", {"cpu": ("paddle",)})
    paying = PayingPasses("fp32", ("merge-qkv",), close=("merge-kv",))
    monkeypatch.setattr(type(create_engine("paddle")), "paying_passes", (paying,))
    cache = ArtifactCache(tmp_path, limit=2**30)
    options = {"passes": None, "cache": cache, "runs": 1, "show": [].append}
    plan = tune_component(build, Device("cpu"), **options)
    tried = [each.passes for each in plan.candidates if each.seconds is not None]
    assert tried == [(), ("merge-qkv",), ("merge-qkv", "merge-kv")]


def test_passes_that_were_asked_for_are_kept_to(open_pipeline):
    plans = open_pipeline(passes=["merge-qkv"]).tune(runs=1)
    assert {each.passes for plan in plans for each in plan.candidates if each.seconds} == {
        ("merge-qkv",)
    }
    # Nothing was measured with other passes, so nothing is taken.
    assert open_pipeline(passes=[]).report.components[0].measured_seconds is None


def test_a_plan_is_this_model_s_alone(open_pipeline, tmp_path):
    fastest = replace(PLAN.candidates[0], engine="paddle", seconds=0.1)
    plan = replace(PLAN, candidates=(*PLAN.candidates, fastest))
    keep_plan(*find_place(open_pipeline()), plan)
    assert [each.engine for each in open_pipeline().report.components][1] == "paddle"
    other = write_tiny_sd(tmp_path / "other", seed=1)
    config = DiffusionConfig(model_path=other, engine="auto", cache_dir=tmp_path)
    assert SDPipeline(config).report.components[1].measured_seconds is None


HALVES = replace(
    PLAN,
    candidates=(
        Candidate("onnxruntime", "fp32", (), 0.5, 1e-6),
        Candidate("onnxruntime", "fp16", (), 0.2, 1e-3),
        Candidate("onnxruntime", "bf16", (), 0.3, 1e-2),
        Candidate("paddle", "fp32", (), 0.4, 1e-6),
    ),
)


def test_the_fastest_precision_is_taken_only_where_any_is_allowed(open_pipeline):
    keep_plan(*find_place(open_pipeline()), HALVES)

    def choose(**options):
        report = open_pipeline(**options).report.components[1]
        return report.engine, report.precision, report.measured_seconds

    assert choose() == ("paddle", "fp32", 0.4)
    assert choose(precision="bf16") == ("onnxruntime", "bf16", 0.3)
    assert choose(precision="auto") == ("onnxruntime", "fp16", 0.2)
    assert choose(precision="auto", engine="paddle") == ("paddle", "fp32", 0.4)
    assert choose(precision="auto", engine="openvino") == ("openvino", "fp32", None)
    report = open_pipeline(precision="auto").report
    assert report.components[1].passed_over["paddle in fp32"].startswith("400 ms, 2.00 times")
    # The others have no plan: nothing is known to be right in half precision.
    assert [each.precision for each in report.components] == ["fp32", "fp16", "fp32"]


def test_what_is_not_safe_is_not_taken_however_fast_it_is(open_pipeline):
    cache, key = find_place(open_pipeline())
    unsafe = UnsafePrecision("onnxruntime", "fp16", "denoiser: NaN")
    remember_failures(cache, key, "denoiser", unsafe=[unsafe])
    keep_plan(cache, key, replace(HALVES, unsafe=find_plan(cache, key).unsafe))
    report = open_pipeline(precision="auto").report.components[1]
    assert (report.precision, report.fallback) == ("bf16", None)
    assert report.passed_over["onnxruntime in fp16"] == "denoiser: NaN"
    with pytest.warns(FallbackWarning, match=r"earlier: denoiser: NaN\); .* in bf16 runs instead"):
        report = open_pipeline(engine="onnxruntime", precision="fp16").report.components[1]
    assert report.precision == "bf16"
    # Who pins it gets it.
    pinned = open_pipeline(engine="onnxruntime", denoiser={"precision": "fp16"}).report
    assert pinned.components[1].precision == "fp16"


def test_tuning_again_keeps_what_is_not_safe(open_pipeline, monkeypatch):
    cache, key = find_place(open_pipeline())
    unsafe = UnsafePrecision("onnxruntime", "fp16", "denoiser: NaN")
    remember_failures(cache, key, "denoiser", unsafe=[unsafe])
    monkeypatch.setattr(
        "fastdeploy_diffusion.compiler.placer.tune_component", lambda *_, **__: HALVES
    )
    (_, plan, _) = open_pipeline().tune(runs=1)
    assert plan == replace(HALVES, unsafe=(unsafe,))
    assert find_plan(cache, key) == plan
    assert {each.model for each in cache.entries()} == {"model"}


def test_a_plan_that_cannot_be_kept_is_gone_by_all_the_same(open_pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "fastdeploy_diffusion.compiler.placer.tune_component", lambda *_, **__: HALVES
    )
    (tmp_path / "file").touch()
    pipeline = open_pipeline(precision="auto", cache_dir=tmp_path / "file" / "cache")
    with pytest.warns(CacheWarning, match=": what was measured is not kept: .*cache_dir"):
        plans = pipeline.tune(runs=1)
    assert plans == [HALVES] * 3
    report = pipeline.report.components[1]
    assert (report.engine, report.precision, report.measured_seconds) == (
        *("onnxruntime", "fp16"),
        0.2,
    )


def test_without_a_cache_there_is_nowhere_to_keep_it(open_pipeline):
    with pytest.raises(ConfigError, match="cache is false"):
        open_pipeline(cache=False).tune()


def test_a_plan_that_cannot_be_looked_up_is_said(open_pipeline, monkeypatch):
    def refuse(*_):
        raise CacheError("nvidia-smi cannot identify gpu:0")

    monkeypatch.setattr("fastdeploy_diffusion.compiler.placer.make_plan_key", refuse)
    with pytest.warns(CacheWarning, match="cannot read the tuning plan: nvidia-smi"):
        report = open_pipeline().report
    assert [each.measured_seconds for each in report.components] == [None] * 3


def test_a_plan_of_a_whole_transformer_chooses_no_engine_that_cannot_stream(tiny_dev, tmp_path):
    options = {"model_path": tiny_dev, "cache_dir": tmp_path}
    ways = (
        Candidate("paddle", "fp32", (), 0.1, 1e-6),
        Candidate("onnxruntime", "fp32", (), 1.0, 0),
    )
    plan = ComponentPlan("denoiser", {}, ways)
    keep_plan(*find_place(FluxPipeline(**options)), plan)
    for memory, engine in (("resident", "paddle"), ("streamed", "onnxruntime")):
        report = FluxPipeline(**options, memory=memory).report.components[2]
        assert (report.name, report.engine) == ("denoiser", engine)
        assert report.measured_seconds is not None
