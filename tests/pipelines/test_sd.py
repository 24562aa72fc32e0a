"""What users meet in SDPipeline, on a small checkpoint with random weights."""

import threading

import numpy as np
import pytest
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import (
    DiffusionConfig,
    DiffusionError,
    GenerationRequest,
    SDPipeline,
)
from fastdeploy_diffusion.engines.placement import FallbackWarning
from fastdeploy_diffusion.errors import (
    CancelledError,
    CheckpointError,
    EngineUnavailableError,
    RequestError,
)
from fastdeploy_diffusion.images import read_metadata, read_settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    write_tiny_sd(path)
    return path


@pytest.fixture(scope="module")
def pipeline(folder):
    return SDPipeline(
        DiffusionConfig(
            model_path=folder,
            scheduler="ddim",
            defaults={"num_inference_steps": 3, "guidance_scale": 4.0},
        )
    )


def pixels(image):
    return np.asarray(image)


def psnr(given, wanted):
    return -10 * np.log10(np.mean((given - wanted) ** 2) + 1e-20)


def test_one_prompt_gives_one_image_with_its_settings(pipeline, tmp_path):
    image = pipeline.text_to_image("a red circle", seed=5)
    assert image.size == (32, 32)
    image.save(tmp_path / "image.png")
    run = read_metadata(tmp_path / "image.png")["run"]
    assert len(run["model_digest"]) == 64
    assert run["components"]["denoiser"]["engine"] == pipeline.report.components[1].engine
    again = pipeline.text_to_image(**read_settings(tmp_path / "image.png"))
    assert (pixels(again) == pixels(image)).all()


def test_settings_repeat_every_picture_of_a_batch(pipeline):
    images = pipeline.text_to_image(
        ["a dog", "红色"], num_images_per_prompt=2, seed=9, clip_skip=1, guidance_rescale=0.3
    )
    assert len(images) == 4
    assert [read_settings(image)["seed"] for image in images] == [9, 10, 11, 12]
    for image in images:
        alone = pipeline.text_to_image(**read_settings(image), output_type="np")
        assert psnr(alone[0], pixels(image) / 255) >= 50


def test_a_batch_never_changes_a_picture(pipeline):
    together = pipeline.text_to_image("a dog", num_images_per_prompt=3, seed=1, output_type="np")
    for index in range(3):
        alone = pipeline.text_to_image("a dog", seed=1 + index, output_type="np")
        assert psnr(together[index], alone[0]) >= 50
    assert psnr(together[0], together[1]) < 50


def test_a_seed_is_drawn_and_reported_when_none_is_given(pipeline):
    result = pipeline.generate(GenerationRequest(prompt="a dog"))
    again = pipeline.generate(GenerationRequest(prompt="a dog", seed=result.seeds[0]))
    assert (pixels(result.images[0]) == pixels(again.images[0])).all()


def test_the_prompt_and_the_negative_prompt_matter(pipeline):
    base = pipeline.text_to_image("a dog", seed=1, output_type="np")
    other = pipeline.text_to_image("a cat on mars", seed=1, output_type="np")
    negative = pipeline.text_to_image("a dog", negative_prompt="red", seed=1, output_type="np")
    assert not np.array_equal(base, other)
    assert not np.array_equal(base, negative)


def test_timings_and_report(pipeline):
    result = pipeline.generate(GenerationRequest(prompt="a dog", num_inference_steps=4))
    timings = result.timings
    assert len(timings.steps) == 4
    assert timings.total == pytest.approx(
        timings.text_encoder
        + timings.prologue
        + sum(timings.steps)
        + timings.beginning
        + timings.vae_decoder
        + timings.post_processing
    )
    for component in result.report.components:
        assert component.relative_error <= component.tolerance
    assert not result.report.fallbacks


def test_stream_gives_every_step_and_then_the_pictures(pipeline):
    request = GenerationRequest(prompt="a dog", seed=4, num_inference_steps=4)
    events = list(pipeline.stream(request))
    assert [event.step for event in events] == [1, 2, 3, 4]
    assert [event.result is not None for event in events] == [False, False, False, True]
    assert events[0].latents.shape == (1, 4, 16, 16)
    expected = pipeline.text_to_image("a dog", seed=4, num_inference_steps=4)
    assert (pixels(events[-1].result.images[0]) == pixels(expected)).all()


def test_two_streams_of_different_sizes_do_not_disturb_each_other(pipeline):
    requests = [
        GenerationRequest(prompt="a dog", seed=4, height=size, width=32) for size in (32, 48)
    ]
    expected = [pipeline.generate(request).images[0] for request in requests]
    streams = [pipeline.stream(request) for request in requests]
    for _ in range(2):
        for stream in streams:
            next(stream)
    for stream, image in zip(streams, expected, strict=True):
        assert (pixels(next(stream).result.images[0]) == pixels(image)).all()


def test_callback_sees_and_changes_tensors(pipeline):
    seen = []

    def halve(caller, step, timestep, tensors):
        assert caller is pipeline
        seen.append((step, timestep, sorted(tensors)))
        return {"latents": tensors["latents"] * np.float32(0.5)}

    names = ["latents", "prompt_embeds"]
    changed = pipeline.text_to_image(
        "a dog",
        seed=1,
        output_type="latent",
        callback_on_step_end=halve,
        callback_on_step_end_tensor_inputs=names,
    )
    assert [step for step, _, _ in seen] == [0, 1, 2]
    assert seen[0][2] == names
    untouched = pipeline.text_to_image("a dog", seed=1, output_type="latent")
    assert not np.array_equal(changed, untouched)


@pytest.mark.parametrize("last", [0, 2], ids=["in the middle", "before it is decoded"])
def test_cancel_stops_after_the_step_that_runs(last, pipeline):
    steps = []

    def stop(caller, step, timestep, tensors):
        steps.append(step)
        if step == last:
            caller.cancel()

    with pytest.raises(CancelledError, match=f"after {last + 1} of 3"):
        pipeline.text_to_image("a dog", callback_on_step_end=stop)
    assert steps == list(range(last + 1))
    pipeline.text_to_image("a dog")  # the next request is not cancelled


def test_cancel_from_another_thread_stops_a_request_that_runs(pipeline):
    begun, cancelled, caught = threading.Event(), threading.Event(), []

    def wait(caller, step, timestep, tensors):
        begun.set()
        assert cancelled.wait(20)

    def draw():
        try:
            pipeline.text_to_image("a dog", callback_on_step_end=wait)
        except CancelledError as error:
            caught.append(str(error))

    drawing = threading.Thread(target=draw)
    drawing.start()
    assert begun.wait(20)
    pipeline.cancel()
    cancelled.set()
    drawing.join()
    assert caught == ["the generation was cancelled after 1 of 3 steps"]


@pytest.mark.parametrize("engine", ["paddle", "paddle-eager"])
def test_engines_agree(folder, pipeline, engine):
    other = SDPipeline(DiffusionConfig(model_path=folder, scheduler="ddim", engine=engine))
    assert engine != pipeline.report.components[1].engine
    settings = {"seed": 2, "num_inference_steps": 3, "guidance_scale": 4.0, "output_type": "np"}
    given = pipeline.text_to_image("a dog", **settings)
    assert psnr(given, other.text_to_image("a dog", **settings)) >= 50


def test_close_frees_and_the_next_request_builds_again(pipeline):
    before = pipeline.text_to_image("a dog", seed=1)
    pipeline.close()
    assert (pixels(pipeline.text_to_image("a dog", seed=1)) == pixels(before)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 33}, "height=32 or 34"),
        ({"width": 0}, "width is 0"),
        ({"height": True}, "height is True"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"num_inference_steps": 2000}, "num_inference_steps"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"guidance_rescale": 2.0}, "0 to 1"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt"),
        ({"seed": "1"}, "seed"),
        ({"seed": [1, 2]}, "2 seeds for 1 picture"),
        ({"seed": 2**64}, "seed"),
        ({"clip_skip": 99}, "clip_skip"),
        ({"negative_prompt": ["a", "b"]}, "2 negative prompts"),
        ({"output_type": "pt"}, "did you mean 'np'"),
        ({"latents": np.zeros((1, 4, 8, 8), np.float32)}, r"\(1, 4, 16, 16\)"),
        ({"latents": np.zeros((1, 4, 16, 16))}, "float32"),
        ({"callback_on_step_end_tensor_inputs": ["latent"]}, "latents"),
        ({"steps": 3}, "num_inference_steps"),
        ({"eta": 0.5}, "ddim"),
    ],
)
def test_bad_requests_are_explained(folder, settings, message):
    pipeline = SDPipeline(DiffusionConfig(model_path=folder, scheduler="euler"))
    with pytest.raises(RequestError, match=message):
        pipeline.text_to_image("a dog", **settings)


@pytest.mark.parametrize("prompt", ["", "  "])
def test_empty_prompts_are_prompts(pipeline, prompt):
    assert pipeline.text_to_image(prompt).size == (32, 32)


@pytest.mark.parametrize("prompt", [None, [], 3, ["a", 3]])
def test_what_is_no_prompt_is_refused(pipeline, prompt):
    with pytest.raises(RequestError, match="prompt"):
        pipeline.text_to_image(prompt)


def test_gpu_falls_back_loudly_or_not_at_all(folder):
    options = {"model_path": folder, "device": "gpu", "use_tensorrt": True}
    with pytest.warns(FallbackWarning, match="tensorrt") as warned:
        pipeline = SDPipeline(DiffusionConfig(**options))
    assert {warning.category for warning in warned} == {FallbackWarning}
    assert len(pipeline.report.fallbacks) == 1
    image = pipeline.text_to_image("a dog", num_inference_steps=2)
    assert "tensorrt" in read_metadata(image)["run"]["components"]["denoiser"]["fallback"]
    with pytest.raises(EngineUnavailableError, match="tensorrt"):
        SDPipeline(DiffusionConfig(**options, cpu_fallback=False))


def test_a_missing_model_is_a_typed_error(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        SDPipeline(DiffusionConfig(model_path=tmp_path / "nothing"))
    assert isinstance(caught.value, DiffusionError)
