"""Image to image: the same pipeline, one request among others, and what it refuses."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fastdeploy_diffusion import DiffusionConfig, FluxPipeline, SDPipeline, SDXLPipeline
from fastdeploy_diffusion.compiler.bundle_writer import write_bundle
from fastdeploy_diffusion.errors import CancelledError, CheckpointError, RequestError
from fastdeploy_diffusion.images import read_metadata, read_settings, save_image
from fastdeploy_diffusion.pictures_in import digest_picture
from fastdeploy_diffusion.pipelines.opening import open_pipeline
from fastdeploy_diffusion.request_fields import FIELDS

PICTURE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (32, 24, 3), np.uint8))
QUICK = {"seed": 5, "num_inference_steps": 4}


@pytest.fixture(scope="module")
def pipeline(tiny_sd1):
    with SDPipeline(DiffusionConfig(model_path=tiny_sd1, engine="openvino")) as opened:
        yield opened


def test_one_pipeline_draws_texts_and_pictures_and_loads_nothing_twice(pipeline, watch):
    before = pipeline.text_to_image("a cat", height=32, width=24, output_type="np", **QUICK)
    given = pipeline.image_to_image("a cat", PICTURE, output_type="np", **QUICK)
    again = pipeline.text_to_image("a cat", height=32, width=24, output_type="np", **QUICK)
    assert given.shape == before.shape
    assert np.abs(given - before).max() > 0.05
    np.testing.assert_array_equal(again, before)
    assert len(watch.loaded) == len(set(watch.loaded))


def test_a_weaker_strength_stays_closer_to_the_picture(pipeline):
    """In latents, with the noise of the encoder alone in common."""
    close, far = (
        pipeline.image_to_image("a cat", PICTURE, strength=each, output_type="latent", **QUICK)
        for each in (0.25, 1.0)
    )
    encoder = pipeline.open_encoder()
    signature = encoder.signature(PICTURE.height // 2, PICTURE.width // 2)
    with encoder.component.lend(signature) as session:
        pixels = np.asarray(PICTURE, np.float32)[None].transpose(0, 3, 1, 2) / 127.5 - 1
        mean = encoder.encode(session, pixels)[:, :4] * encoder.config.scaling_factor
    assert np.abs(close - mean).mean() < 0.5 * np.abs(far - mean).mean()


def test_a_picture_is_made_again_from_its_file(pipeline, tmp_path):
    large = PICTURE.resize((61, 70))
    drawn = pipeline.image_to_image("a cat", large, strength=0.6, resize_mode="crop", **QUICK)
    save_image(drawn, tmp_path / "cat.png")
    run = read_metadata(tmp_path / "cat.png")["run"]
    assert run["image_sha256"] == digest_picture(large)
    assert "vae_encoder" in run["components"]
    settings = read_settings(tmp_path / "cat.png")
    assert (settings["strength"], settings["resize_mode"]) == (0.6, "crop")
    assert (settings["width"], settings["height"]) == (60, 70)
    assert pipeline.image_to_image(image=large, **settings).tobytes() == drawn.tobytes()
    with pytest.raises(RequestError, match="text_to_image takes no strength") as caught:
        pipeline.text_to_image(**settings)
    assert "image_to_image" in caught.value.fix
    plain = pipeline.text_to_image("a cat", **QUICK)
    assert "vae_encoder" not in read_metadata(plain)["run"]["components"]
    assert not {"strength", "resize_mode"} & read_settings(plain).keys()


def test_requests_with_and_without_pictures_run_at_once(pipeline):
    settings = {"output_type": "np", "height": 32, "width": 24, **QUICK}
    asked = [
        {"image": PICTURE, "strength": 0.5},
        {},
        {"image": [PICTURE], "num_images_per_prompt": 2},
    ]
    wanted = [pipeline.generate("a cat", **settings, **each).images for each in asked]
    with pipeline.batch(pictures=4) as batch:
        running = [batch.submit("a cat", **settings, **each) for each in asked]
    for each, alone in zip(running, wanted, strict=True):
        np.testing.assert_array_equal(each.result().images, alone)


def test_events_callbacks_and_cancel_count_the_steps_that_are_left(pipeline):
    seen = []

    def note(pipeline, step, timestep, tensors):
        seen.append((step, timestep))

    events = list(
        pipeline.stream(
            "a cat",
            image=PICTURE,
            strength=0.5,
            scheduler="euler",
            callback_on_step_end=note,
            **QUICK,
        )
    )
    assert [(each.step, each.total) for each in events] == [(1, 2), (2, 2)]
    assert [step for step, _ in seen] == [0, 1]
    assert events[-1].result.timings.beginning > 0
    running = pipeline.stream("a cat", image=PICTURE, strength=0.5, scheduler="euler", **QUICK)
    next(running)
    running.cancel()
    with pytest.raises(CancelledError, match="after 1 of 2 steps"):
        running.result()


@pytest.mark.parametrize("memory", ["resident", "staged"])
def test_the_encoder_is_in_memory_for_its_stage(tiny_sd1, watch, memory):
    config = DiffusionConfig(model_path=tiny_sd1, engine="paddle-eager", memory=memory)
    with SDPipeline(config) as pipeline:
        drawn = pipeline.image_to_image("a cat", PICTURE, **QUICK)
        assert watch.loaded == ["text_encoder", "vae_encoder", "denoiser", "vae_decoder"]
        assert len(watch.open) == (4 if memory == "resident" else 0)
    assert drawn.size == PICTURE.size


def test_a_bundle_draws_the_same(pipeline, tmp_path):
    wanted = pipeline.image_to_image("a cat", PICTURE, **QUICK)
    write_bundle(pipeline, [PICTURE.size], tmp_path / "with", encoder=True)
    write_bundle(pipeline, [PICTURE.size], tmp_path / "without")
    with open_pipeline(DiffusionConfig(model_path=tmp_path / "with")) as bundled:
        assert bundled.image_to_image("a cat", PICTURE, **QUICK).tobytes() == wanted.tobytes()
        with pytest.raises(RequestError, match="no size that the bundle was built for"):
            bundled.image_to_image("a cat", PICTURE.crop((0, 0, 16, 16)), **QUICK)
    bundled = open_pipeline(DiffusionConfig(model_path=tmp_path / "without"))
    with bundled, pytest.raises(CheckpointError, match="has no vae_encoder") as caught:
        bundled.image_to_image("a cat", PICTURE, **QUICK)
    assert "--encoder" in caught.value.fix


def test_open_sizes_encode_as_known_ones(tiny_sd1, pipeline):
    open_sizes = DiffusionConfig(
        model_path=tiny_sd1,
        engine="openvino",
        enable_dynamic_shape=True,
        shapes={"height": [16, 32, 48], "width": [16, 32, 48], "batch": [1, 2, 2]},
    )
    settings = {"output_type": "np", "strength": 0.5, **QUICK}
    with SDPipeline(open_sizes) as opened:
        given = opened.image_to_image("a cat", PICTURE, **settings)
    wanted = pipeline.image_to_image("a cat", PICTURE, **settings)
    assert np.abs(given - wanted).max() < 1e-4


@pytest.mark.parametrize(
    ("settings", "problem", "fix"),
    [
        ({"strength": 0}, "none is left", "larger strength"),
        ({"strength": 0.2}, "strength is 0.2: of 4 steps, none is left", "larger strength"),
        ({"strength": 1.5}, "strength is 1.5", ""),
        ({"strength": "much"}, "strength is 'much'", ""),
        ({"resize_mode": "fill"}, "resize_mode is 'fill'", "did you mean 'pad'?"),
        ({"width": 32}, "image is 24 x 32", "resize_mode='stretch'"),
        ({"image": PICTURE.resize((25, 33))}, "image is 25 x 33", "resize_mode"),
        ({"image": [PICTURE, PICTURE]}, "2 images for 1 prompts", "a list of prompts"),
        ({"image": None}, "image is None", "text_to_image"),
        ({"image": "missing.png"}, "image is 'missing.png'", ""),
        ({"latents": np.zeros((1, 4, 16, 12), np.float32)}, "latents are given", "leave one"),
        ({"strenght": 0.5}, "unknown argument 'strenght'", "did you mean 'strength'?"),
    ],
)
def test_what_cannot_be_drawn_is_refused(pipeline, settings, problem, fix):
    with pytest.raises(RequestError) as caught:
        pipeline.image_to_image("a cat", **{"image": PICTURE, **QUICK, **settings})
    assert problem in caught.value.problem
    assert fix in caught.value.fix


def test_nearest_sizes_are_named(pipeline):
    with pytest.raises(RequestError) as caught:
        pipeline.image_to_image("a cat", PICTURE.resize((25, 33)), **QUICK)
    assert "24 x 32 (width x height) and 26 x 34" in caught.value.allowed


def test_settings_by_place_and_settings_without_a_picture_are_refused(pipeline):
    with pytest.raises(RequestError, match="1 settings are given without their names"):
        pipeline.image_to_image("a cat", PICTURE, 0.5)
    for name, value in (("strength", 0.5), ("resize_mode", "pad")):
        with pytest.raises(RequestError, match=f"{name} is .*, and there is no image"):
            pipeline.generate("a cat", **{name: value})


@pytest.mark.parametrize("kind", [SDPipeline, SDXLPipeline, FluxPipeline])
def test_signatures_show_what_each_method_takes(kind):
    pictures, texts = (
        inspect.signature(method).parameters for method in (kind.image_to_image, kind.text_to_image)
    )
    assert list(pictures)[:3] == ["self", "prompt", "image"]
    assert pictures["image"].default is inspect.Parameter.empty
    own = {"image", "strength", "image_guidance_scale", "resize_mode"}
    assert pictures.keys() - texts.keys() == own
    described = " ".join(inspect.getdoc(kind.image_to_image).split())
    assert f"strength: {FIELDS['strength'].text}." in described


def test_a_request_with_a_picture_is_described_and_batched(pipeline):
    request = pipeline.request_class(prompt="a cat", image=PICTURE, strength=0.5)
    assert pipeline.describe_request(request)["strength"] == 0.5
    assert pipeline.describe_request(replace(request, strength=None))["strength"] == 0.8
    assert pipeline.choose_batch(request) > 1
