"""The second pass: what it refuses, runs and writes beside; a picture over a picture."""

import numpy as np
import pytest

from fastdeploy_diffusion import DiffusionConfig, SDPipeline, SDXLPipeline
from fastdeploy_diffusion.compiler.bundle_writer import write_bundle
from fastdeploy_diffusion.config import RequestDefaults
from fastdeploy_diffusion.errors import CheckpointError, RequestError
from fastdeploy_diffusion.images import read_settings
from fastdeploy_diffusion.pictures_in import Size, resize

QUICK = {"seed": 5, "num_inference_steps": 4, "height": 64, "width": 64}


@pytest.fixture(scope="module")
def shapes():
    with SDPipeline(DiffusionConfig.from_preset("shapes", engine="paddle-eager")) as pipeline:
        yield pipeline


def test_it_is_image_to_image_over_the_first_picture(shapes):
    image = shapes.text_to_image("a red circle", hires_scale=2, hires_strength=0.5, **QUICK)
    first = shapes.text_to_image("a red circle", **QUICK)
    second = shapes.image_to_image(
        "a red circle",
        resize(first, Size(128, 128), "stretch"),
        strength=0.5,
        seed=5,
        num_inference_steps=4,
    )
    np.testing.assert_array_equal(np.asarray(image), np.asarray(second))


@pytest.mark.parametrize("upscaler", ["lanczos", "latent"])
def test_the_file_makes_the_picture_again(shapes, upscaler):
    settings = {**QUICK, "hires_scale": 1.5, "hires_upscaler": upscaler}
    image = shapes.text_to_image("a red circle", **settings)
    assert image.size == (96, 96)
    written = read_settings(image)
    assert written["hires_scale"] == 1.5
    assert written["hires_strength"] == 0.4
    assert written["hires_upscaler"] == upscaler
    assert (written["height"], written["width"]) == (64, 64)
    again = shapes.text_to_image(**written)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(image))


def test_events_and_timings_are_those_of_both_passes(shapes):
    events = list(shapes.stream("a red circle", hires_scale=2, hires_strength=0.5, **QUICK))
    assert [(each.step, each.total) for each in events] == [(n, 6) for n in range(1, 7)]
    assert [each.latents.shape[-1] for each in events] == [8] * 4 + [16] * 2
    assert len(events[-1].result.timings.steps) == 6


def test_two_pictures_are_drawn_as_each_alone(shapes):
    settings = {**QUICK, "hires_scale": 2, "output_type": "np"}
    prompts = ["a red circle", "a blue square"]
    given = shapes.text_to_image(prompts, **{**settings, "seed": [5, 6]})
    for index, (prompt, seed) in enumerate(zip(prompts, (5, 6), strict=True)):
        alone = shapes.text_to_image(prompt, **{**settings, "seed": seed})
        assert np.abs(given[index] - alone[0]).max() < 2 / 255


def test_requests_of_a_batch_may_have_it_or_not(shapes):
    with pytest.warns(UserWarning, match="take turns"):
        batch = shapes.batch()
    with batch:
        plain = batch.submit("a red circle", **QUICK)
        larger = batch.submit("a red circle", hires_scale=2, **QUICK)
    assert plain.result().images[0].size == (64, 64)
    alone = shapes.text_to_image("a red circle", hires_scale=2, **QUICK)
    np.testing.assert_array_equal(np.asarray(larger.result().images[0]), np.asarray(alone))


def test_a_configuration_may_ask_for_it(shapes):
    defaults = RequestDefaults(hires_scale=2, hires_upscaler="latent", height=64, width=64)
    config = DiffusionConfig.from_preset("shapes", engine="paddle-eager", defaults=defaults)
    with SDPipeline(config) as pipeline:
        image = pipeline.text_to_image("a red circle", num_inference_steps=4, seed=5)
        assert image.size == (128, 128)
        settings = {**QUICK, "hires_scale": 2, "hires_upscaler": "latent"}
        wanted = shapes.text_to_image("a red circle", **settings)
        np.testing.assert_array_equal(np.asarray(image), np.asarray(wanted))
        plain = pipeline.text_to_image("a red circle", hires_scale=1, num_inference_steps=4)
        assert plain.size == (64, 64)
        over = pipeline.image_to_image("a red circle", plain, num_inference_steps=4, seed=5)
        assert over.size == (64, 64)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hires_scale": 0.5}, "hires_scale is 0.5"),
        ({"hires_scale": 9}, "hires_scale is 9"),
        ({"hires_scale": 1.01}, "makes 64 x 64"),
        ({"hires_strength": 0.4}, "there is no second pass"),
        ({"hires_scale": 2, "hires_strength": 0.1}, "the second pass of hires_scale=2 draws 128 x"),
        ({"hires_scale": 2, "hires_upscaler": "esrgan"}, "hires_upscaler is 'esrgan'"),
    ],
)
def test_settings_that_are_refused(shapes, settings, words):
    with pytest.raises(RequestError, match=words):
        shapes.text_to_image("a red circle", **{**QUICK, **settings})


def test_it_is_for_texts_alone(shapes):
    picture = shapes.text_to_image("a red circle", **QUICK)
    with pytest.raises(RequestError, match="hires_scale is 2, and an image is given"):
        shapes.image_to_image("a red circle", picture, hires_scale=2)


def test_it_does_not_go_with_a_refiner(tiny_sdxl, tiny_refiner):
    config = DiffusionConfig(model_path=tiny_sdxl, refiner=tiny_refiner, engine="paddle-eager")
    settings = {"hires_scale": 2, "num_inference_steps": 4, "height": 16, "width": 16}
    with SDXLPipeline(config) as both:
        with pytest.raises(RequestError, match=r"denoising_end 0\.8, which leaves noise"):
            both.text_to_image("a dog", **settings)
        image = both.text_to_image("a dog", denoising_end=1, **settings)
    assert image.size == (32, 32)


def test_a_bundle_of_both_sizes_draws_the_same(tiny_sd1, tmp_path):
    settings = {"seed": 5, "num_inference_steps": 4, "height": 16, "width": 16, "hires_scale": 2}
    latent = {**settings, "hires_upscaler": "latent"}
    sizes = [(16, 16), (32, 32)]
    with SDPipeline(tiny_sd1, engine="onnxruntime") as pipeline:
        wanted = [pipeline.text_to_image("a red circle", **each) for each in (settings, latent)]
        write_bundle(pipeline, sizes, tmp_path / "both", encoder=True)
        write_bundle(pipeline, sizes, tmp_path / "bare")
    with SDPipeline(tmp_path / "both") as bundled:
        given = bundled.text_to_image("a red circle", **settings)
        np.testing.assert_array_equal(np.asarray(given), np.asarray(wanted[0]))
        with pytest.raises(RequestError, match="24x24 is no size that the bundle was built for"):
            bundled.text_to_image("a red circle", **{**settings, "hires_scale": 1.5})
    with SDPipeline(tmp_path / "bare") as bare:
        with pytest.raises(CheckpointError, match="has no vae_encoder"):
            bare.text_to_image("a red circle", **settings)
        given = bare.text_to_image("a red circle", **latent)
    np.testing.assert_array_equal(np.asarray(given), np.asarray(wanted[1]))
