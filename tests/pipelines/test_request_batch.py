"""Requests that are served at once get the pictures that each gets alone, bit for bit."""

import random
import secrets
import threading

import numpy as np
import pytest

from fastdeploy_diffusion import DiffusionConfig, FluxPipeline, SDPipeline, SDXLPipeline
from fastdeploy_diffusion.engines.registry import create_engine, engine_names
from fastdeploy_diffusion.errors import CancelledError, EngineError, NonFiniteError, RequestError
from fastdeploy_diffusion.runtime.session import Session

ENGINES = [name for name in engine_names() if create_engine(name).keeps_rows_apart]
OPENED = {"sd": SDPipeline, "sdxl": SDXLPipeline, "flux": FluxPipeline}
SIZE = {"height": 32, "width": 24}
QUICK = {**SIZE, "num_inference_steps": 3, "output_type": "np"}
PROMPTS = ("a cat", "a red circle", "a dog on mars", "", "红色")


@pytest.fixture(scope="module")
def models(tiny_sd1, tiny_sdxl, tiny_dev):
    return {"sd": tiny_sd1, "sdxl": tiny_sdxl, "flux": tiny_dev}


@pytest.fixture(scope="module")
def pipeline(models):
    return open_pipeline(models, "sd", "onnxruntime")


@pytest.fixture
def runs(monkeypatch):
    """The number of rows of each run of a denoiser, by what asks for it."""
    found, run_rows = [], Session.run_rows

    def record(session, rows):
        if type(session).__name__ == "RecoveringSession":
            found.append(len(rows))
        return run_rows(session, rows)

    monkeypatch.setattr(Session, "run_rows", record)
    return found


def open_pipeline(models, family, engine, **options):
    return OPENED[family](DiffusionConfig(model_path=models[family], engine=engine, **options))


def invent(draw, family):
    """A request, drawn at random, with settings that have an effect on the family."""
    settings = {
        **SIZE,
        "prompt": draw.choice(PROMPTS),
        "seed": draw.getrandbits(32),
        "num_inference_steps": draw.randint(1, 5),
        "num_images_per_prompt": draw.choice((1, 1, 2)),
        "output_type": "np",
    }
    if draw.random() < 0.5:
        settings["negative_prompt"] = draw.choice(PROMPTS)
    if family == "flux":
        settings["guidance_scale"] = draw.choice((1.0, 3.5, 7.0))
        if "negative_prompt" in settings:
            settings["true_cfg_scale"] = draw.choice((2.0, 4.5))
        return FluxPipeline.request_class(**settings)
    settings["guidance_scale"] = draw.choice((1.0, 3.0, 7.5))
    settings["guidance_rescale"] = draw.choice((0.0, 0.7))
    settings["scheduler"] = draw.choice(
        ("ddim", "ddpm", "euler", "euler-ancestral", "heun", "pndm", "DPM++ 2M SDE Karras", None)
    )
    if settings["scheduler"] == "ddim":
        settings["eta"] = draw.choice((0.0, 0.9))
    if family == "sdxl" and draw.random() < 0.5:
        settings["original_size"] = settings["target_size"] = (40, 56)
    return OPENED[family].request_class(**settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "memory"), [*((engine, "resident") for engine in ENGINES), (ENGINES[0], "staged")]
)
@pytest.mark.parametrize("family", OPENED)
def test_requests_that_join_and_leave_at_any_step(models, family, engine, memory, runs):
    chosen = secrets.randbits(32)
    draw = random.Random(chosen)
    pipeline = open_pipeline(models, family, engine, memory=memory)
    asked = [invent(draw, family) for _ in range(7)]
    for index in range(2):  # these run together, all at once
        plain = {**SIZE, "num_inference_steps": 3 + index, "seed": index, "output_type": "np"}
        asked[index] = OPENED[family].request_class(prompt=PROMPTS[index], **plain)
    alone = [pipeline.generate(request).images for request in asked]
    runs.clear()
    left = draw.sample(range(len(asked)), 2)
    with pipeline.batch(pictures=6) as batch:
        joined = [batch.submit(request) for request in asked[:2]]
        batch.step()
        assert len(runs) == 1
        while len(joined) < len(asked) or batch.step():
            for request in asked[len(joined) :][: draw.choice((0, 1, 1, 3))]:
                joined.append(batch.submit(request))
            if left and len(joined) > left[0] and draw.random() < 0.5:
                joined[left.pop(0)].cancel()
            batch.step()
    for index, (generation, wanted) in enumerate(zip(joined, alone, strict=True)):
        if generation.is_cancelled:
            try:
                generation.result()
            except CancelledError:
                continue  # otherwise, it had ended before
        given = generation.result().images
        assert np.array_equal(given, wanted), f"seed {chosen}, request {index}: {asked[index]}"
    pipeline.close()


def test_at_most_as_many_pictures_as_are_allowed_are_drawn_at_once(pipeline, runs):
    with pipeline.batch(pictures=3) as batch:
        submitted = [
            batch.submit("a cat", seed=seed, num_images_per_prompt=count, **QUICK)
            for seed, count in enumerate((1, 2, 1, 4, 1))
        ]
        batch.step()
        # With guidance, two rows a picture, in runs of few sizes; the third request waits.
        assert runs == [4, 2]
    steps = len(submitted[1].result().timings.steps)
    assert runs == [*[4, 2] * steps, *[2] * steps, *[8] * steps, *[2] * steps]
    # Those that are served together leave together.
    assert all(each.is_over for each in submitted)


def test_a_request_joins_as_soon_as_there_is_room(pipeline, runs):
    with pipeline.batch(pictures=2) as batch:
        submitted = [
            batch.submit("a cat", seed=seed, **{**QUICK, "num_inference_steps": steps})
            for seed, steps in enumerate((1, 3, 1))
        ]
        batch.step()
        assert submitted[0].is_over == (len(submitted[0].result().timings.steps) == 1)
    first, second, third = (len(each.result().timings.steps) for each in submitted)
    assert first + third <= second
    assert runs == [*[4] * (first + third), *[2] * (second - first - third)]


def test_rows_of_other_sizes_run_apart_and_guided_ones_with_others(pipeline, runs):
    asked = [
        {**QUICK, "seed": 1, "guidance_scale": 1.0},
        {**QUICK, "seed": 2},
        {**QUICK, "seed": 3, "width": 32},
        {**QUICK, "seed": 4, "width": 32},
    ]
    alone = [pipeline.text_to_image("a cat", **settings) for settings in asked]
    runs.clear()
    with pipeline.batch(pictures=8) as batch:
        given = [batch.submit("a cat", **settings) for settings in asked]
        batch.step()
        assert runs == [2, 1, 4]
    for generation, wanted in zip(given, alone, strict=True):
        np.testing.assert_array_equal(generation.result().images, wanted)


def fail(pipeline, step, timestep, tensors):
    raise ValueError("not this one")


def spoil(pipeline, step, timestep, tensors):
    return {"latents": np.full_like(tensors["latents"], np.nan)}


@pytest.mark.parametrize(
    ("callback", "error"),
    [(fail, ValueError), (spoil, NonFiniteError), (None, CancelledError), (None, EngineError)],
    ids=["a callback raises", "NaN", "cancelled", "the engine fails"],
)
def test_a_request_that_fails_leaves_the_others(pipeline, monkeypatch, callback, error):
    wanted = [pipeline.text_to_image("a cat", seed=seed, **QUICK) for seed in (1, 2)]
    with pipeline.batch(pictures=8) as batch:
        first, victim, last = (
            batch.submit("a cat", seed=1, **QUICK),
            batch.submit("a dog", seed=8, **QUICK, callback_on_step_end=callback),
            batch.submit("a cat", seed=2, **QUICK),
        )
        batch.step()
        if error is CancelledError:
            victim.cancel()
        if error is EngineError:
            noise = next(iter(victim)).latents
            run_rows = Session.run_rows

            def refuse(session, rows):
                if any(np.array_equal(row.sample, noise[0]) for row in rows):
                    raise EngineError("the device is tired")
                return run_rows(session, rows)

            monkeypatch.setattr(Session, "run_rows", refuse)
    for generation, images in zip((first, last), wanted, strict=True):
        np.testing.assert_array_equal(generation.result().images, images)
    for _ in range(2):  # also when it is asked again
        with pytest.raises(error):
            victim.result()


def test_a_cancelled_request_that_waits_never_begins(pipeline, runs):
    with pipeline.batch(pictures=1) as batch:
        first, third, second = (batch.submit("a cat", seed=seed, **QUICK) for seed in (1, 2, 3))
        batch.step()
        second.cancel()
        batch.step()
        assert second.is_over
        third.cancel()
    assert runs == [2] * len(first.result().timings.steps)
    with pytest.raises(CancelledError, match="after 0 of"):
        second.result()


def test_the_pipeline_cancels_all_that_runs(pipeline):
    with pipeline.batch(pictures=8) as batch:
        submitted = [batch.submit("a cat", seed=seed, **QUICK) for seed in (1, 2)]
        batch.step()
        pipeline.cancel()
    for each in submitted:
        with pytest.raises(CancelledError, match="after 1 of"):
            each.result()


def test_events_are_those_of_a_stream(pipeline):
    alone = list(pipeline.stream("a cat", seed=3, **QUICK))
    with pipeline.batch(pictures=8) as batch:
        batch.submit("a dog", seed=4, **QUICK)
        given = list(batch.submit("a cat", seed=3, **QUICK))
    assert [each.step for each in given] == [each.step for each in alone]
    for ours, wanted in zip(given, alone, strict=True):
        assert (ours.total, ours.timestep) == (wanted.total, wanted.timestep)
        np.testing.assert_array_equal(ours.latents, wanted.latents)
    assert [each.result is None for each in given] == [*[True] * (len(given) - 1), False]


def test_threads_submit_and_wait(pipeline):
    wanted = [pipeline.text_to_image("a cat", seed=seed, **QUICK) for seed in range(4)]
    given = [None] * 4
    with pipeline.batch(pictures=8) as batch:

        def work(seed):
            given[seed] = batch.submit("a cat", seed=seed, **QUICK).result().images

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    np.testing.assert_array_equal(given, wanted)


@pytest.mark.parametrize("memory", ["resident", "staged"])
def test_what_is_given_up_gives_its_memory_back(models, memory, watch):
    pipeline = open_pipeline(models, "sd", "onnxruntime", memory=memory, passes=[])
    submitted = []

    def give_up():
        with pipeline.batch(pictures=1) as batch:
            submitted.extend(batch.submit("a cat", seed=seed, **QUICK) for seed in (1, 2))
            batch.step()
            assert "denoiser" in watch.open
            raise KeyError

    with pytest.raises(KeyError):
        give_up()
    assert watch.open == ([] if memory == "staged" else ["text_encoder", "denoiser", "vae_decoder"])
    for each in submitted:
        with pytest.raises(CancelledError, match="the batch was closed"):
            each.result()
    pipeline.close()
    assert watch.open == []


def test_a_batch_that_is_closed_takes_no_more(pipeline):
    with pipeline.batch() as batch:
        pass
    with pytest.raises(RequestError, match="the batch is closed"):
        batch.submit("a cat")


def test_staged_requests_share_the_denoiser(models, watch):
    pipeline = open_pipeline(models, "sd", "onnxruntime", memory="staged", passes=[])
    with pipeline.batch(pictures=8) as batch:
        for seed in (1, 2):
            batch.submit("a cat", seed=seed, **QUICK)
        batch.step()
        assert watch.open == ["denoiser"]
    assert watch.open == []


@pytest.mark.parametrize(
    ("family", "engine", "memory"),
    [("sd", "paddle", "resident"), *(("flux", engine, "streamed") for engine in ENGINES)],
)
def test_where_numbers_depend_on_the_batch_requests_take_turns(
    models, family, engine, memory, runs
):
    pipeline = open_pipeline(models, family, engine, memory=memory)
    wanted = [pipeline.text_to_image("a cat", seed=seed, **QUICK) for seed in (1, 2)]
    alone = runs[: len(runs) // 2]
    runs.clear()
    with pytest.warns(UserWarning, match=f"on {engine} .cpu. with memory='{memory}', numbers depe"):
        batch = pipeline.batch(pictures=8)
    with batch:
        given = [batch.submit("a cat", seed=seed, **QUICK) for seed in (1, 2)]
        batch.step()
        assert runs == 2 * alone[:1]
    for generation, images in zip(given, wanted, strict=True):
        np.testing.assert_array_equal(generation.result().images, images)
    assert pipeline.choose_batch(pipeline.request_class(prompt="a cat", **SIZE)) == 1


@pytest.mark.parametrize("pictures", [0, -1, 1.5, True, "2"])
def test_sizes_that_are_refused(pipeline, pictures):
    with pytest.raises(RequestError, match="pictures is"):
        pipeline.batch(pictures)


def test_what_a_request_is_refused_for_is_said_when_it_is_submitted(pipeline):
    with pipeline.batch() as batch:
        with pytest.raises(RequestError, match="height is 17"):
            batch.submit("a cat", height=17)
        assert not batch.step()


def test_a_callback_cannot_drive_its_batch(pipeline):
    with pipeline.batch() as batch:

        def drive(caller, step, timestep, tensors):
            batch.step()

        generation = batch.submit("a cat", **QUICK, callback_on_step_end=drive)
    with pytest.raises(RequestError, match="in the middle of a step"):
        generation.result()


def test_a_stream_is_cancelled_without_the_others(pipeline):
    first, second = (pipeline.stream("a cat", seed=seed, **QUICK) for seed in (1, 2))
    next(first), next(second)
    first.cancel()
    with pytest.raises(CancelledError, match="after 1 of"):
        first.result()
    wanted = pipeline.text_to_image("a cat", seed=2, **QUICK)
    np.testing.assert_array_equal(second.result().images, wanted)


def test_an_interrupted_step_is_taken_again(pipeline, monkeypatch):
    wanted = pipeline.text_to_image("a cat", seed=1, **QUICK)
    with pipeline.batch() as batch:
        generation = batch.submit("a cat", seed=1, **QUICK)
        batch.step()
        with monkeypatch.context() as patched:
            patched.setattr(Session, "run_rows", interrupt)
            with pytest.raises(KeyboardInterrupt):
                batch.step()
    np.testing.assert_array_equal(generation.result().images, wanted)


def interrupt(session, rows):
    raise KeyboardInterrupt


def test_a_stream_that_nobody_holds_gives_its_memory_back(models, watch):
    stream = open_pipeline(models, "sd", "onnxruntime", memory="staged").stream("a cat", **QUICK)
    next(stream)
    assert watch.open
    del stream
    assert watch.open == []


def test_a_stream_that_was_closed_has_no_result(pipeline):
    stream = pipeline.stream("a cat", **QUICK)
    next(stream)
    stream.close()
    assert list(stream) == []
    with pytest.raises(EngineError, match="given up"):
        stream.result()
