"""InstructPix2Pix against diffusers' pipelines: same weights, scheduler, picture and seed."""

import inspect
import json

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
)
from diffusers_folder import write_diffusers_folder
from picture_psnr import psnr
from PIL import Image
from sdxl_folder import write_sdxl_folder

from fastdeploy_diffusion import DiffusionConfig, SDPipeline, SDXLPipeline
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
SDXL_REQUESTS = {
    "two texts": {"prompt_2": "a red thing", "guidance_rescale": 0.6},
    "sizes": {"original_size": (40, 30), "crops_coords_top_left": (2, 4), "target_size": (24, 32)},
    "left noisy": {"denoising_end": 0.7},
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


@pytest.fixture(scope="module", params=[False, True], ids=["sdxl", "cosxl"])
def sdxl(tmp_path_factory, request):
    """SDXL's folder and diffusers' pipeline of it; CosXL's edits a picture's scaled latents."""
    folder = tmp_path_factory.mktemp("sdxl")
    text = write_sdxl_folder(folder, SEED, channels=8)
    parts = {name: each for name, each in text.components.items() if each is not None}
    reference = StableDiffusionXLInstructPix2PixPipeline(
        **parts, is_cosxl_edit=request.param, add_watermarker=False
    )
    reference.set_progress_bar_config(disable=True)
    reference.save_pretrained(folder / "editing")
    if request.param:
        index = folder / "editing" / "model_index.json"
        content = {**json.loads(index.read_text()), "is_cosxl_edit": True}
        index.write_text(json.dumps(content))
    config = DiffusionConfig(model_path=folder / "editing", engine="paddle-eager")
    with SDXLPipeline(config) as opened:
        yield opened, reference


def draw_picture(seed=1):
    colours = np.random.default_rng(seed).integers(0, 256, (*SIZE[::-1], 3), np.uint8)
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


@pytest.mark.parametrize(
    "settings",
    [*REQUESTS.values(), *SDXL_REQUESTS.values()],
    ids=[*REQUESTS, *SDXL_REQUESTS],
)
def test_pictures_of_sdxl_are_those_of_diffusers(sdxl, settings):
    pipeline, reference = sdxl
    settings = {**settings, "num_inference_steps": 4, "output_type": "np"}
    given = pipeline.image_to_image("make it red", draw_picture(), seed=7, **settings)
    width, height = SIZE
    wanted = reference(
        "make it red",
        image=draw_picture(),
        height=height,
        width=width,
        generator=torch.Generator().manual_seed(7),
        **settings,
    ).images
    assert psnr(given, wanted) >= LEAST


def test_several_pictures_of_sdxl_are_those_of_diffusers(sdxl):
    pipeline, reference = sdxl
    prompts, pictures = ["make it red", "make it blue"], [draw_picture(), draw_picture(2)]
    settings = {"num_inference_steps": 2, "output_type": "np"}
    given = pipeline.image_to_image(prompts, pictures, seed=[7, 9], **settings)
    width, height = SIZE
    generators = [torch.Generator().manual_seed(seed) for seed in (7, 9)]
    wanted = reference(
        prompts, image=pictures, height=height, width=width, generator=generators, **settings
    ).images
    for own, other in zip(given, wanted, strict=True):
        assert psnr(own, other) >= LEAST


def check_defaults(pipeline, reference):
    wanted = inspect.signature(reference.__call__).parameters
    request = pipeline.request_class(prompt="make it red", image=draw_picture())
    settings = pipeline.describe_request(request)
    for name in ("guidance_scale", "image_guidance_scale", "num_inference_steps"):
        assert settings[name] == wanted[name].default, name


def test_what_is_left_out_is_what_diffusers_takes(model, pipeline, sdxl):
    check_defaults(pipeline, model[1])
    check_defaults(*sdxl)


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
    ):
        with pytest.raises(RequestError, match=words):
            draw()
    with SDPipeline(DiffusionConfig.from_preset("shapes", engine="paddle-eager")) as other:
        picture = picture.resize((32, 32))
        with pytest.raises(RequestError, match="does not edit pictures by instructions"):
            other.image_to_image("a cat", picture, image_guidance_scale=1.5)
