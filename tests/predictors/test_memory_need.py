"""Too little memory: told before anything is allocated, and by one kind of error if it runs out."""

import resource
import subprocess
import sys
import time
from math import prod
from pathlib import Path

import pytest

from fastdeploy_diffusion import DiffusionConfig, FluxPipeline, SDPipeline, SDXLPipeline
from fastdeploy_diffusion.engines.base import Engine
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.errors import CancelledError, EngineError, RequestError, ResourceError
from fastdeploy_diffusion.families.networks.activations import Activations
from fastdeploy_diffusion.memory_room import MemoryRoom
from fastdeploy_diffusion.out_of_memory import tells_of_memory
from fastdeploy_diffusion.predictors import memory_budget, memory_need
from fastdeploy_diffusion.predictors.memory_need import (
    MemoryNeed,
    PictureBatch,
    find_ways_out,
    hold_activations,
)

MIB = 2**20
QUICK = {"num_inference_steps": 1, "output_type": "latent", "seed": 1}


def give(monkeypatch, size):
    """Let the machine have so much memory."""
    room = MemoryRoom(size, "this machine")
    for module in (memory_budget, memory_need):
        monkeypatch.setattr(module, "find_memory_room", lambda: room)
    monkeypatch.setattr(memory_budget, "measure_own_memory", lambda: 0)


@pytest.fixture(scope="module")
def pipelines(tiny_sd1, tiny_sdxl, tiny_dev):
    models = ((SDPipeline, tiny_sd1), (SDXLPipeline, tiny_sdxl), (FluxPipeline, tiny_dev))
    return [
        opened(DiffusionConfig(model_path=model, engine="paddle-eager")) for opened, model in models
    ]


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs Linux")
@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize(
    "asked",
    [
        {"height": 80_000, "width": 80_000},
        {"height": 2**40, "width": 2**40},
        {"height": 2**62},
        {"num_images_per_prompt": 1_000_000, "height": 512, "width": 512},
    ],
)
def test_what_no_machine_holds_is_refused_at_once(pipelines, kind, asked):
    pipeline = pipelines[kind]
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ResourceError, match="at least"):
        pipeline.text_to_image("a cat", **asked)
    if "width" in asked and "num_images_per_prompt" not in asked:
        for prepare in (pipeline.build, pipeline.tune):
            with pytest.raises(ResourceError, match="at least"):
                prepare(**asked)
    # Lists of a million prompts and seeds are all that there is.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
    assert time.process_time() - started < 5


def test_a_plan_can_be_made_of_what_cannot_be_drawn(pipelines):
    settings = pipelines[0].describe_request(
        pipelines[0].request_class(prompt="a cat", height=80_000, width=80_000)
    )
    assert (settings["height"], settings["width"]) == (80_000, 80_000)


def test_the_message_says_need_room_and_what_would_fit(pipelines, monkeypatch):
    give(monkeypatch, 64 * MIB)
    with pytest.raises(ResourceError) as caught:
        pipelines[0].text_to_image("a cat", height=4096, width=2048, **QUICK)
    assert caught.value.problem.startswith(
        "1 picture of 2048 x 4096 (width x height) takes at least"
    )
    assert caught.value.problem.endswith("of memory, and 64.0 MiB of this machine can be had")
    assert caught.value.fix.startswith("height=")
    height, width = (int(part.split("=")[1]) for part in caught.value.fix.split(", "))
    assert height == pytest.approx(2 * width, abs=2)
    assert f"one of {width} x {height}" in caught.value.allowed
    fits = PictureBatch(1, height, width)
    plan = pipelines[0]._plan(pipelines[0].request_class(prompt="a cat"))
    _, estimate = pipelines[0]._describe_need(plan)
    assert 32 * MIB < estimate(fits, "resident").total <= 64 * MIB


def test_fewer_pictures_are_proposed_before_smaller_ones(pipelines, monkeypatch):
    give(monkeypatch, 64 * MIB)
    with pytest.raises(ResourceError) as caught:
        pipelines[0].text_to_image("a cat", num_images_per_prompt=100_000, **QUICK)
    most = int(caught.value.fix.split("=")[1].split(",")[0])
    assert 1 < most < 100_000
    assert caught.value.allowed == f"up to {most} of this size at once"


def test_the_encoder_counts_where_it_is_needed(tiny_sd1):
    pipeline = SDPipeline(DiffusionConfig(model_path=tiny_sd1, engine="openvino"))
    plan, batch = pipeline._plan_picture(32, 32), PictureBatch(1, 32, 32)
    parts = pipeline._find_parts(plan, encoder=True)
    without, whole = (
        memory_need.estimate_need(each, 2, batch, "resident")
        for each in (pipeline._find_parts(plan), parts)
    )
    source = pipeline.checkpoint.tensors("vae")
    own = [name for name in source if name.startswith(("encoder.", "quant_conv."))]
    assert whole.weights - without.weights == 4 * sum(prod(source.shape(name)) for name in own)
    stage = memory_need.estimate_stage(*parts.encoder.of_batch(1))
    held = create_engine("openvino").held_features
    # At full size, a residual block holds three feature maps of 16 channels.
    assert stage.activations == int(held * 3 * 16 * 32 * 32 * 4)


def test_staged_is_proposed_where_that_is_enough():
    def estimate(batch, memory):
        return MemoryNeed(90 if memory == "resident" else 50, batch.height, 0)

    batch = PictureBatch(1, 40, 40)
    ways = find_ways_out(batch, 100, estimate, "resident", 8)
    assert ways.fix == "memory='staged' — or: height=8, width=8"
    assert ways.allowed == "one of 8 x 8"
    assert find_ways_out(batch, 95, estimate, "resident", 8).fix == "memory='staged'"
    assert find_ways_out(batch, 80, estimate, "staged", 8).fix == "height=24, width=24"
    assert find_ways_out(batch, 10, estimate, "staged", 8).fix.startswith("free memory")


def test_only_what_is_kept_for_other_sizes_goes_where_memory_is_short(tiny_sd1, watch, monkeypatch):
    pipeline = SDPipeline(DiffusionConfig(model_path=tiny_sd1, engine="paddle-eager"))

    def draw(side):
        pipeline.text_to_image("a cat", height=side, width=side, **{**QUICK, "output_type": "np"})

    for side in (32, 48, 32):
        draw(side)
    assert sorted(watch.open) == sorted(2 * ["denoiser", "vae_decoder"] + ["text_encoder"])
    loaded = len(watch.loaded)
    need = memory_need.estimate_need(
        pipeline._list_parts(pipeline._plan_picture(32, 32)), 2, PictureBatch(1, 32, 32), "resident"
    )
    give(monkeypatch, need.total)
    draw(32)  # it fits as it is
    assert len(watch.open) == 5
    give(monkeypatch, need.total - 1)
    monkeypatch.setattr(memory_budget, "measure_own_memory", lambda: 1)
    monkeypatch.setattr(pipeline._budget, "_at_start", 0)
    draw(32)  # it fits with what is held
    assert sorted(watch.open) == ["denoiser", "text_encoder", "vae_decoder"]
    assert len(watch.loaded) == loaded
    pipeline.close()


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_batch_is_as_large_as_pays_and_fits(tiny_sd1, engine, monkeypatch):
    pipeline = SDPipeline(DiffusionConfig(model_path=tiny_sd1, engine=engine))

    def choose(**size):
        asked = {"prompt": ["a cat", "a dog"], "num_images_per_prompt": 7, "seed": [1] * 14}
        return pipeline.choose_batch(pipeline.request_class(**asked, **size))

    give(monkeypatch, 10**15)
    assert choose(height=32, width=32) > choose(height=256, width=128) > 1
    ranges = {"enable_dynamic_shape": True, "shapes": {"batch": [1, 2, 6]}}
    ranged = SDPipeline(DiffusionConfig(model_path=tiny_sd1, engine=engine, **ranges))
    assert ranged.choose_batch(ranged.request_class(prompt="a cat")) == 3
    assert ranged.choose_batch(ranged.request_class(prompt="a cat", guidance_scale=1.0)) == 6
    assert choose(height=2048, width=2048) == 1
    give(monkeypatch, 1)
    assert choose(height=32, width=32) == 1


def test_where_rows_are_not_known_to_be_independent_pictures_are_drawn_one_by_one(pipelines):
    for pipeline in pipelines:
        assert pipeline.choose_batch(pipeline.request_class(prompt="a cat")) == 1


def test_a_layer_that_does_not_fit_is_not_run(tiny_sd1, monkeypatch):
    pipeline = SDPipeline(DiffusionConfig(model_path=tiny_sd1, engine="paddle-eager", cache=False))
    monkeypatch.setattr(memory_need, "find_memory_room", lambda: MemoryRoom(10, "this machine"))
    with pytest.raises(ResourceError, match="the Paddle layer, with which a new build") as caught:
        pipeline.build()
    assert "cache_dir" in caught.value.fix


@pytest.mark.parametrize("shapes", [{}, {"height": [32, 64, 64]}])
def test_a_build_that_cannot_be_proven_is_not_begun(tiny_sd1, monkeypatch, tmp_path, shapes):
    """An export takes minutes, and gigabytes of its own."""
    ranges = {"enable_dynamic_shape": True, "shapes": shapes} if shapes else {}
    pipeline = SDPipeline(
        DiffusionConfig(model_path=tiny_sd1, engine="openvino", cache_dir=tmp_path, **ranges)
    )
    built = []
    monkeypatch.setattr(Engine, "build", lambda self, program, *_: built.append(program.name))
    monkeypatch.setattr(memory_need, "find_memory_room", lambda: MemoryRoom(10, "this machine"))
    with pytest.raises(ResourceError, match="the Paddle layer, with which a new build"):
        pipeline.build()
    assert built == []


def test_engines_hold_what_was_measured():
    counted = Activations(features=1000, scores=10_000)
    assert hold_activations(create_engine("paddle"), "fp32", counted) == 4 * 2 * 10_000
    assert hold_activations(create_engine("openvino"), "bf16", counted) == 2 * 1200
    assert (
        hold_activations(create_engine("tensorrt"), "fp32", counted) == 0
    )  # its memory is the GPU's
    for engine in ("paddle", "paddle-eager", "openvino", "onnxruntime"):
        assert create_engine(engine).held_features >= 1, engine


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (RuntimeError("(ResourceExhausted) Fail to alloc memory of 5 size"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("Failed to allocate memory for requested buffer of size 9"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (OSError(28, "No space left on device"), False),
        (ValueError("bad"), False),
        (EngineError("the network returns NaN"), False),
    ],
)
def test_runtimes_name_it_differently(error, is_memory):
    assert tells_of_memory(error) == is_memory
    wrapped = EngineError("paddle failed to run denoiser")
    wrapped.__cause__ = error
    assert tells_of_memory(wrapped) == is_memory


def test_causes_in_a_circle_end():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert not tells_of_memory(first)


@pytest.mark.parametrize("error", [MemoryError("std::bad_alloc"), EngineError("std::bad_alloc")])
def test_memory_that_runs_out_has_one_name(pipelines, error):
    def run_out(*_):
        raise error

    with pytest.raises(ResourceError) as caught:
        pipelines[0].text_to_image(
            "a cat", height=64, width=64, callback_on_step_end=run_out, **QUICK
        )
    assert caught.value.problem.startswith("memory ran out for 1 picture of 64 x 64")
    assert "std::bad_alloc" in caught.value.problem
    assert "height=" in caught.value.fix
    assert caught.value.__cause__ is error
    assert caught.value.fix


@pytest.mark.parametrize(
    "error", [CancelledError("stopped"), RequestError("no"), ValueError("a mistake")]
)
def test_other_errors_stay_what_they_are(pipelines, error):
    def fail(*_):
        raise error

    with pytest.raises(type(error), match=str(error)):
        pipelines[0].text_to_image("a cat", callback_on_step_end=fail, **QUICK)


UNDER_A_LIMIT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30,) * 2)
from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.errors import ResourceError
for engine, size in (("paddle", 64), ("paddle", 4096), ("openvino", 4096), ("onnxruntime", 4096)):
    pipeline = SDPipeline(DiffusionConfig.from_preset("shapes", engine=engine))
    try:
        pipeline.text_to_image("x", height=size, width=size, num_inference_steps=1)
        print(engine, size, "drawn")
    except ResourceError as error:
        print(engine, size, "ulimit -v" in str(error))
"""


@pytest.mark.slow  # builds with Paddle Inference
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_under_a_hard_limit_a_picture_or_an_error_comes_of_it():
    done = subprocess.run(
        [sys.executable, "-c", UNDER_A_LIMIT],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.splitlines() == [
        "paddle 64 drawn",
        "paddle 4096 True",
        "openvino 4096 True",
        "onnxruntime 4096 True",
    ], done.stderr
    assert done.returncode == 0
