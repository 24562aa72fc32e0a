"""A pipeline in int8 calibrates itself, says what it costs, and falls back where it is too much."""

import warnings
from collections import Counter, defaultdict

import numpy as np
import pytest
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.compiler import int8_search
from fastdeploy_diffusion.compiler.bundle_writer import write_bundle
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.placement import FallbackWarning
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.errors import AccuracyError, ConfigError
from fastdeploy_diffusion.images import read_metadata

REQUEST = {"seed": 4, "output_type": "np"}
_ENGINES = ("openvino", "onnxruntime")
# The denoiser alone, so that tests of what is common to all components are quick.
DENOISER = {"precision": "fp32", "denoiser": {"precision": "int8"}}


def engines():
    spec = BuildSpec(Device("cpu"), "int8")
    found = {name: create_engine(name).supports(spec) for name in _ENGINES}
    return [
        pytest.param(name, marks=pytest.mark.skipif(not each.ok, reason=each.reason), id=name)
        for name, each in found.items()
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_sd(tmp_path_factory.mktemp("tiny") / "sd")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("a red circle\na dog\n猫\na tree\na blue square\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def open_pipeline(folder, prompts, root):
    def open_one(engine="openvino", **options):
        return SDPipeline(
            DiffusionConfig(
                **{
                    "model_path": folder,
                    "engine": engine,
                    "precision": "int8",
                    "int8_quality": 12.0,
                    "calibration_prompts": str(prompts),
                    "cache_dir": str(root),
                    "defaults": {"num_inference_steps": 3, "height": 32, "width": 32},
                    **options,
                }
            )
        )

    return open_one


@pytest.mark.parametrize("engine", engines())
def test_a_pipeline_in_int8_says_what_it_costs_and_starts_from_what_is_kept(
    open_pipeline, engine, monkeypatch, tmp_path, root, watch
):
    shown, loaded = defaultdict(list), defaultdict(set)

    def note(task, done, total):
        shown[task].append((done, total))
        loaded[task].add(tuple(sorted(watch.open)))

    with open_pipeline(engine) as pipeline:
        report = pipeline.quantize(note)
        check_memory(report, loaded, watch)
        assert not list(root.glob("*.staged"))
        picture = pipeline.text_to_image("a cat", seed=4)
        write_bundle(pipeline, [(32, 32)], tmp_path / "bundle")
    # Every call and picture is told before it is run; more is not measured where that is enough.
    calls = 4 * (3 + 1)  # of four prompts, whose first step is two calls
    told = shown["denoiser: ranges of what layers read"]
    assert told == [(done, calls) for done in range(calls)]
    assert shown["recording calibration"] == [(done, 4) for done in range(5)]
    assert shown["drawing with the builds that were chosen"] == [(0, 1)]
    assert not [task for task in shown if "cost" in task or task.startswith("drawing in int8")]
    denoiser = next(each for each in report.components if each.name == "denoiser")
    assert (denoiser.precision, denoiser.fallback) == ("int8", None)
    found = denoiser.int8
    assert found.quantized > 0
    assert found.quality.psnr >= found.target == 12.0
    assert {(each.error, each.is_kept) for each in found.blocks} == {(None, False)}
    metadata = read_metadata(picture)["run"]["components"]["denoiser"]
    assert metadata["precision"] == "int8"
    assert metadata["int8"]["psnr"] == found.quality.psnr

    def fail(*_, **__):
        raise AssertionError("calibrated again")

    monkeypatch.setattr(int8_search, "record_calibration", fail)
    with open_pipeline(engine) as again:
        np.testing.assert_array_equal(
            np.asarray(again.text_to_image("a cat", seed=4)), np.asarray(picture)
        )
        assert again.report.components[1].int8 == found
    with SDPipeline(DiffusionConfig(model_path=tmp_path / "bundle")) as bundled:
        copied = bundled.text_to_image("a cat", seed=4)
    np.testing.assert_array_equal(np.asarray(copied), np.asarray(picture))
    assert read_metadata(copied)["run"]["components"]["denoiser"]["int8"] == metadata["int8"]


def check_memory(report, loaded, watch):
    """Only the networks that run are in memory: one session of each, of whichever pipeline."""
    for name in (each.name for each in report.components):
        for opened in watch.openings:
            own = [each for each in opened if each.startswith(name)]
            # A network that is whole is there once; of one that is in parts, each is.
            assert len(own) <= 1 or (name not in own and len(set(own)) == len(own)), own
    for task, opened in loaded.items():
        name, colon, _ = task.partition(": ")
        if colon:
            assert opened <= {(), (name,)}, "and no other beside it"


@pytest.fixture
def measure(open_pipeline):
    """Returns what measures the ranges of an engine's components, unless these are kept."""

    def measure_once(engine):
        with open_pipeline(engine) as pipeline:
            pipeline.quantize()

    return measure_once


@pytest.mark.parametrize("engine", engines())
def test_a_quality_that_is_not_reached_falls_back_at_every_start(
    open_pipeline, engine, measure, watch
):
    measure(engine)
    runs = []
    for quality in (80.0, 80.0, 79.9):
        loaded = defaultdict(set)

        def note(task, done, total, loaded=loaded):
            loaded[task].add(tuple(sorted(watch.open)))

        watch.clear()
        with open_pipeline(engine, int8_quality=quality) as pipeline:
            with pytest.warns(FallbackWarning, match="target"):
                pipeline.quantize(note)
            assert not [each for each in pipeline.report.components if each.precision == "int8"]
            if loaded:
                check_memory(pipeline.report, loaded, watch)
            picture = pipeline.text_to_image("a cat", seed=4)
            blocks = pipeline.report.components[2].int8.blocks
        runs.append(loaded)
        assert "target" in pipeline.report.components[1].fallback
        errors = [each.error for each in blocks]
        assert errors == sorted(errors, reverse=True)
        assert errors[0] > 0
    first, again, other = runs
    assert "vae_decoder: cost of each block" in first
    assert not again
    # Another target draws pictures. What blocks cost is kept.
    assert "drawing with the builds that were chosen" in other
    assert not [task for run in runs for task in run if "ranges" in task]
    assert not [task for task in other if "cost" in task]
    denoiser = read_metadata(picture)["run"]["components"]["denoiser"]
    assert denoiser["precision"] != "int8"
    assert "target" in denoiser["fallback"]


@pytest.mark.parametrize("engine", engines())
def test_a_pinned_precision_that_is_not_good_enough_is_an_error(open_pipeline, engine, measure):
    measure(engine)
    with (
        open_pipeline(engine, **DENOISER, int8_quality=80.0) as pipeline,
        pytest.raises(AccuracyError, match=r"denoiser\.precision"),
    ):
        pipeline.build()


@pytest.mark.parametrize("engine", engines())
def test_other_weights_are_calibrated_anew(open_pipeline, engine, measure, root, tmp_path):
    measure(engine)
    before = set(root.glob("calibrations/*/*.safetensors"))
    # Of each engine, for what one engine's float32 records, another one's takes.
    other = write_tiny_sd(tmp_path / "sd", seed=1 + _ENGINES.index(engine))

    def interrupt(task, done, total):
        if "ranges" in task:
            raise KeyboardInterrupt

    with (
        open_pipeline(engine, model_path=other) as pipeline,
        pytest.raises(KeyboardInterrupt),
    ):
        pipeline.quantize(interrupt)
    recorded = set(root.glob("calibrations/*/*.safetensors")) - before
    # The held-out prompt, and the others.
    assert sorted(Counter(file.parent for file in recorded).values()) == [1, 4]


@pytest.mark.parametrize("engine", engines()[-1:])
def test_an_interrupted_search_leaves_nothing_half_written(open_pipeline, engine, tmp_path):
    def interrupt(task, done, total):
        if "ranges" in task:
            raise KeyboardInterrupt

    with open_pipeline(engine, cache_dir=str(tmp_path), **DENOISER) as pipeline:
        with pytest.raises(KeyboardInterrupt):
            pipeline.quantize(interrupt)
        files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("calibrations/*/*.s*")}
        assert len(files) == 5
        assert not list(tmp_path.glob("*.staged"))
        pipeline.quantize()
        assert pipeline.report.components[1].int8 is not None
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.glob("calibrations/*/*.s*")}


def test_without_a_cache_nothing_is_calibrated(open_pipeline):
    with (
        open_pipeline(cache=False) as pipeline,
        pytest.raises(ConfigError, match="cache is false"),
    ):
        pipeline.build()


def test_one_step_is_refused(open_pipeline, tmp_path):
    defaults = {"num_inference_steps": 1, "height": 32, "width": 32}
    with (
        open_pipeline(cache_dir=str(tmp_path), defaults=defaults) as pipeline,
        pytest.raises(ConfigError, match="1 step"),
    ):
        pipeline.build()


def test_nothing_in_int8_is_nothing_to_do(open_pipeline):
    with warnings.catch_warnings(), open_pipeline(precision="fp32", int8_quality=None) as pipeline:
        warnings.simplefilter("error")
        pipeline.quantize(lambda *_: pytest.fail("something was done"))
