"""``memory="staged"``: one component at a time, the same pictures, and nothing left open."""

import numpy as np
import pytest
from flux_folder import write_flux_folder
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, GenerationRequest, SDPipeline
from fastdeploy_diffusion.config.sections import MEMORY_CHOICES
from fastdeploy_diffusion.engines.placement import FallbackWarning
from fastdeploy_diffusion.errors import CancelledError, EngineError
from fastdeploy_diffusion.images import read_metadata
from fastdeploy_diffusion.pipelines.flux import FluxPipeline
from fastdeploy_diffusion.predictors.residency import RESIDENCIES

STAGES = ["text_encoder", "denoiser", "vae_decoder"]
FLUX_STAGES = ["text_encoder", "text_encoder_2", "denoiser", "vae_decoder"]
REQUEST = {"seed": 5, "num_inference_steps": 3}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_sd(tmp_path_factory.mktemp("checkpoint") / "model")


@pytest.fixture(scope="module")
def flux_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flux")
    write_flux_folder(folder, is_dev=True, seed=5)
    return folder / "model"


@pytest.fixture(scope="module")
def wanted(model):
    return open_sd(model, memory="resident").text_to_image("a cat", **REQUEST)


def open_sd(model, memory="staged", **options):
    # An engine whose default passes leave each component one session.
    choice = {"engine": "paddle", **options}
    return SDPipeline(DiffusionConfig(model_path=model, memory=memory, **choice))


def pixels(image):
    return np.asarray(image)


def test_every_value_of_the_option_is_implemented():
    assert tuple(RESIDENCIES) == MEMORY_CHOICES


def test_one_component_is_in_memory_at_a_time(model, wanted, watch):
    resident = open_sd(model, memory="resident")
    resident.text_to_image("a cat", **REQUEST)
    assert (watch.most, watch.open) == (3, STAGES)
    resident.close()
    assert watch.open == []
    watch.clear()
    pipeline = open_sd(model)
    result = pipeline.generate(GenerationRequest(prompt="a cat", **REQUEST))
    assert (watch.loaded, watch.most, watch.open) == (STAGES, 1, [])
    np.testing.assert_array_equal(pixels(result.images[0]), pixels(wanted))
    assert result.report.memory == "staged"
    assert read_metadata(result.images[0])["run"]["memory"] == "staged"
    assert result.timings.prepare > 0
    # The next request finds the builds that are kept.
    again = pipeline.generate(GenerationRequest(prompt="a dog", **REQUEST))
    assert (watch.loaded, watch.most, watch.open) == (2 * STAGES, 1, [])
    assert all(each.cached for each in again.report.components)


@pytest.mark.slow
def test_flux_loads_its_text_encoders_one_after_the_other(flux_model, watch):
    settings = {**REQUEST, "height": 16, "width": 24, "negative_prompt": "ugly"}
    settings |= {"true_cfg_scale": 2.0, "max_sequence_length": 16}
    pictures = {}
    for memory in ("resident", "staged"):
        watch.clear()
        pipeline = FluxPipeline(
            DiffusionConfig(model_path=flux_model, memory=memory, engine="paddle")
        )
        pictures[memory] = pipeline.text_to_image("a dog", **settings)
        assert (watch.loaded, watch.most) == (FLUX_STAGES, 4 if memory == "resident" else 1)
        if memory == "resident":
            pipeline.close()
        assert watch.open == []
    # All texts are known to the last one, which loads no text encoder for them.
    again = pipeline.generate(pipeline.request_class(prompt="a dog", **settings))
    assert watch.loaded == [*FLUX_STAGES, "denoiser", "vae_decoder"]
    counts = [(each.component, each.kept, each.texts) for each in again.embeddings]
    assert counts == [("text_encoder", 2, 2), ("text_encoder_2", 2, 2)]
    np.testing.assert_array_equal(pixels(again.images[0]), pixels(pictures["resident"]))
    np.testing.assert_array_equal(pixels(pictures["resident"]), pixels(pictures["staged"]))


def test_build_leaves_nothing_in_memory(model, watch, tmp_path):
    report = open_sd(model, cache_dir=tmp_path).build()
    assert not any(each.cached for each in report.components)
    assert all(each.relative_error is not None for each in report.components)
    assert (watch.loaded, watch.most, watch.open) == (STAGES, 1, [])


def test_a_stream_that_is_given_up_gives_its_memory_back(model, watch):
    stream = open_sd(model).stream(GenerationRequest(prompt="a cat", **REQUEST))
    next(stream)
    assert watch.open == ["denoiser"]
    stream.close()
    assert watch.open == []


def test_what_is_cancelled_or_fails_gives_its_memory_back(model, watch, wanted):
    pipeline = open_sd(model)

    def cancel(caller, index, timestep, tensors):
        caller.cancel()

    def spoil(caller, index, timestep, tensors):
        return {"latents": np.full_like(tensors["latents"], np.nan)}

    for callback, error in ((cancel, CancelledError), (spoil, EngineError)):
        with pytest.raises(error):
            pipeline.text_to_image("a cat", **REQUEST, callback_on_step_end=callback)
        assert watch.open == []
        assert watch.loaded[-1] == "denoiser"
    np.testing.assert_array_equal(
        pixels(pipeline.text_to_image("a cat", **REQUEST)), pixels(wanted)
    )


def test_requests_at_the_same_time_do_not_close_each_others_sessions(model, watch):
    pipeline = open_sd(model)
    requests = [
        GenerationRequest(prompt="a cat", height=size, width=32, **REQUEST) for size in (32, 32, 48)
    ]
    expected = [pipeline.generate(request).images[0] for request in requests]
    streams = [pipeline.stream(request) for request in requests]
    for _ in range(2):
        for stream in streams:
            next(stream)
    # Those of one size share the denoiser; the other one has its own.
    assert watch.open == ["denoiser", "denoiser"]
    for stream, image in zip(streams, expected, strict=True):
        *_, last = stream
        np.testing.assert_array_equal(pixels(last.result.images[0]), pixels(image))
    assert watch.open == []


def test_an_engine_that_fails_is_replaced_and_closed(model, wanted, watch, monkeypatch):
    pipeline = open_sd(model, engine="openvino", passes=[])

    def break_engine(caller, index, timestep, tensors):
        if index == 0:
            session = caller.component("denoiser").pool.sessions[-1].running.session
            monkeypatch.setattr(session, "_run", lambda feeds: 1 / 0)

    with pytest.warns(FallbackWarning, match="division by zero"):
        given = pipeline.text_to_image("a cat", **REQUEST, callback_on_step_end=break_engine)
    assert (watch.most, watch.open) == (1, [])
    difference = pixels(given).astype(int) - pixels(wanted).astype(int)
    assert np.abs(difference).max() <= 2
    # The next request stays on what works.
    pipeline.text_to_image("a cat", **REQUEST)
    engines = {each.name: each.engine for each in pipeline.report.components}
    assert engines == {"text_encoder": "openvino", "denoiser": "paddle", "vae_decoder": "openvino"}
    assert watch.open == []
