"""InstructPix2Pix against diffusers' pipeline: same weights, scheduler, picture and seed."""

import inspect

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    StableDiffusionInstructPix2PixPipeline,
)
from diffusers_folder import write_diffusers_folder
from picture_psnr import psnr
from PIL import Image

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.images import read_settings

LEAST = 100  # dB: what is right has 120 and more
SEED, SIZE = 20261203, (32, 24)
SCHEDULERS = {"ddim": DDIMScheduler, "euler-ancestral": EulerAncestralDiscreteScheduler}
REQUESTS = {
    "both": {"guidance_scale": 7.5, "image_guidance_scale": 1.5},
    "negative prompt": {"guidance_scale": 3.0, "negative_prompt": "ugly"},
    "no guidance": {"image_guidance_scale": 0.9},
    "no text guidance": {"guidance_scale": 1.0},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    text = write_diffusers_folder(folder, "sd1", seed=SEED, channels=8)
    reference = StableDiffusionInstructPix2PixPipeline(
        **text.components, requires_safety_checker=False
    )
    reference.set_progress_bar_config(disable=True)
    reference.save_pretrained(folder / "editing")
    return folder / "editing", reference


@pytest.fixture(scope="module")
def pipeline(model):
    with SDPipeline(DiffusionConfig(model_path=model[0], engine="paddle-eager")) as opened:
        yield opened


def draw_picture():
    colours = np.random.default_rng(1).integers(0, 256, (*SIZE[::-1], 3), np.uint8)
    return Image.fromarray(colours)


@pytest.mark.parametrize("settings", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_pictures_are_those_of_diffusers(model, pipeline, settings, scheduler):
    folder, reference = model
    reference.scheduler = SCHEDULERS[scheduler].from_pretrained(folder / "scheduler")
    settings = {**settings, "num_inference_steps": 4, "output_type": "np"}
    given = pipeline.image_to_image(
        "make it red", draw_picture(), seed=7, scheduler=scheduler, **settings
    )
    generator = torch.Generator().manual_seed(7)
    wanted = reference("make it red", image=draw_picture(), generator=generator, **settings).images
    assert psnr(given, wanted) >= LEAST


def test_what_is_left_out_is_what_diffusers_takes(model, pipeline):
    wanted = inspect.signature(model[1].__call__).parameters
    request = pipeline.request_class(prompt="make it red", image=draw_picture())
    settings = pipeline.describe_request(request)
    for name in ("guidance_scale", "image_guidance_scale", "num_inference_steps"):
        assert settings[name] == wanted[name].default, name


def test_the_file_makes_the_picture_again(pipeline):
    settings = {"seed": 3, "num_inference_steps": 2, "image_guidance_scale": 2.0}
    image = pipeline.image_to_image("make it red", draw_picture(), **settings)
    written = read_settings(image)
    assert "strength" not in written
    again = pipeline.image_to_image(image=draw_picture(), **written)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(image))


def test_what_is_refused(pipeline):
    picture = draw_picture()
    for draw, words in (
        (lambda: pipeline.text_to_image("a cat"), "there is no picture"),
        (lambda: pipeline.inpaint("a cat", picture, np.ones(SIZE[::-1], bool)), "a mask is given"),
        (lambda: pipeline.image_to_image("a cat", picture, strength=0.5), "strength is 0.5"),
        (
            lambda: pipeline.image_to_image("a cat", picture, guidance_rescale=0.5),
            "not defined for two kinds of guidance",
        ),
    ):
        with pytest.raises(RequestError, match=words):
            draw()
    with SDPipeline(DiffusionConfig.from_preset("shapes", engine="paddle-eager")) as other:
        picture = picture.resize((32, 32))
        with pytest.raises(RequestError, match="does not edit pictures by instructions"):
            other.image_to_image("a cat", picture, image_guidance_scale=1.5)
