"""Inpainting against diffusers' pipelines: same weights, scheduler, picture, mask and seed."""

import inspect

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FluxFillPipeline,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    HeunDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
)
from diffusers_folder import write_diffusers_folder
from flux_folder import write_flux_folder
from picture_psnr import psnr
from PIL import Image
from sdxl_folder import write_sdxl_folder

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.pipelines.opening import open_pipeline

# dB: what is right has 120 and more, and 8-bit pictures that differ in their last bit 60.
LEAST, LEAST_8_BIT = 100, 60
STRENGTHS = (0.3, 0.75, 1.0)
SEED, WIDTH, HEIGHT = 20261201, 32, 24
KINDS = {
    "sd1": StableDiffusionInpaintPipeline,
    "sd1, nine channels": StableDiffusionInpaintPipeline,
    "sdxl": StableDiffusionXLInpaintPipeline,
    "sdxl, nine channels": StableDiffusionXLInpaintPipeline,
    "flux": FluxInpaintPipeline,
    "flux, fill": FluxFillPipeline,
}
DRAWING_OVER = {
    "sd1": StableDiffusionImg2ImgPipeline,
    "sdxl": StableDiffusionXLImg2ImgPipeline,
    "flux": FluxImg2ImgPipeline,
}
SCHEDULERS = {
    "sd1": {
        "ddim": DDIMScheduler,
        "euler-ancestral": EulerAncestralDiscreteScheduler,
        "heun": HeunDiscreteScheduler,
    },
    "sd1, nine channels": {"ddim": DDIMScheduler},
    "sdxl": {"euler": EulerDiscreteScheduler, "ddim": DDIMScheduler},
    "sdxl, nine channels": {"euler": EulerDiscreteScheduler},
    "flux": {None: None},
    "flux, fill": {None: None},
}
CASES = [(family, name) for family, names in SCHEDULERS.items() for name in names]
SETTINGS = {"num_inference_steps": 6, "guidance_scale": 4.0, "height": HEIGHT, "width": WIDTH}


def draw_picture(width=WIDTH, height=HEIGHT):
    colours = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(colours)


def draw_mask(width=WIDTH, height=HEIGHT):
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2 + 3, width // 3 : width // 2 + 6] = 255
    return Image.fromarray(mask)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Make (folder, diffusers' pipeline) of a family, with random weights."""
    made = {}

    def make(family):
        if family not in made:
            folder, more = tmp_path_factory.mktemp("model"), {}
            channels = 9 if "nine" in family else 4
            if "sdxl" in family:
                reference = write_sdxl_folder(folder, seed=SEED, channels=channels)
            elif "flux" in family:
                fills = "fill" in family
                reference = write_flux_folder(folder, is_dev=True, seed=SEED, fills=fills)
            else:
                reference = write_diffusers_folder(folder, "sd1", seed=SEED, channels=channels)
                more = {"requires_safety_checker": False}
            pipeline = KINDS[family](**reference.components, **more)
            pipeline.set_progress_bar_config(disable=True)
            made[family] = folder / "model", pipeline
        return made[family]

    return make


def settings_of(family):
    return {**SETTINGS, "max_sequence_length": 24} if "flux" in family else SETTINGS


@pytest.mark.parametrize(("family", "scheduler"), CASES)
def test_pictures_are_those_of_diffusers(models, family, scheduler):
    folder, reference = models(family)
    if scheduler is not None:
        kind = SCHEDULERS[family][scheduler]
        reference.scheduler = kind.from_pretrained(folder / "scheduler")
    picture, mask, settings = draw_picture(), draw_mask(), settings_of(family)
    config = DiffusionConfig(model_path=folder, scheduler=scheduler, engine="paddle")
    with open_pipeline(config) as pipeline:
        for strength in STRENGTHS:
            more = {**settings, "strength": strength, "output_type": "np"}
            given = pipeline.inpaint("a red circle", picture, mask, seed=11, **more)
            wanted = reference(
                "a red circle",
                image=picture,
                mask_image=mask,
                generator=torch.Generator().manual_seed(11),
                **more,
            ).images
            assert psnr(given, wanted) >= LEAST, strength


@pytest.mark.parametrize("family", ["sd1", "flux"])
@pytest.mark.parametrize("blur", [0, 3])
def test_only_what_is_masked_is_drawn_large(models, family, blur):
    folder, reference = models(family)
    if family != "flux":
        reference.scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    picture, mask = draw_picture(51, 60), draw_mask(51, 60)
    blurred = reference.mask_processor.blur(mask, blur) if blur else mask
    settings = {**settings_of(family), "strength": 0.75, "padding_mask_crop": 5}
    with open_pipeline(DiffusionConfig(model_path=folder, engine="paddle")) as pipeline:
        given = pipeline.inpaint("a dog", picture, mask, mask_blur=blur, seed=3, **settings)
        generator = torch.Generator().manual_seed(3)
        wanted = reference(
            "a dog", image=picture, mask_image=blurred, generator=generator, **settings
        ).images[0]
    given, wanted = (np.asarray(each, np.float64) / 255 for each in (given, wanted))
    assert psnr(given, wanted) >= LEAST_8_BIT


@pytest.mark.parametrize("family", DRAWING_OVER)
def test_what_is_left_out_is_what_diffusers_takes(models, family):
    folder, _ = models(family)
    size = {"height": HEIGHT, "width": WIDTH}
    with open_pipeline(DiffusionConfig(model_path=folder, engine="paddle")) as pipeline:
        for kind, given in (
            (DRAWING_OVER[family], {"image": draw_picture()}),
            (KINDS[family], {"image": draw_picture(), "mask": draw_mask()}),
        ):
            wanted = inspect.signature(kind.__call__).parameters
            request = pipeline.request_class(prompt="a cat", **given, **size)
            settings = pipeline.describe_request(request)
            for name in ("strength", "guidance_scale", "num_inference_steps"):
                assert settings[name] == wanted[name].default, (kind, name)


def test_two_pictures_have_a_mask_and_a_seed_each(models):
    folder, reference = models("sd1, nine channels")
    reference.scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    other = draw_mask().transpose(Image.Transpose.ROTATE_180)
    prompts, masks, seeds = ["a red circle", "a dog"], [draw_mask(), other], (4, 9)
    settings = {**settings_of("sd1"), "strength": 0.75, "output_type": "np"}
    with open_pipeline(DiffusionConfig(model_path=folder, engine="paddle")) as pipeline:
        given = pipeline.inpaint(prompts, draw_picture(), masks, seed=seeds, **settings)
    for index, (prompt, mask, seed) in enumerate(zip(prompts, masks, seeds, strict=True)):
        wanted = reference(
            prompt,
            image=draw_picture(),
            mask_image=mask,
            generator=torch.Generator().manual_seed(seed),
            **settings,
        ).images
        assert psnr(given[index : index + 1], wanted) >= LEAST


def test_flux_fill_takes_the_defaults_of_diffusers(models):
    folder, reference = models("flux, fill")
    wanted = inspect.signature(reference.__call__).parameters
    with open_pipeline(DiffusionConfig(model_path=folder, engine="paddle")) as pipeline:
        size = {"height": HEIGHT, "width": WIDTH}
        request = pipeline.request_class(
            prompt="a cat", image=draw_picture(), mask=draw_mask(), **size
        )
        settings = pipeline.describe_request(request)
    for name in ("strength", "guidance_scale", "num_inference_steps"):
        assert settings[name] == wanted[name].default, name


def test_flux_fill_puts_back_what_the_mask_leaves(models):
    folder, _ = models("flux, fill")
    with open_pipeline(DiffusionConfig(model_path=folder, engine="paddle")) as pipeline:
        settings = {"num_inference_steps": 2, "seed": 3, "max_sequence_length": 24}
        wide = pipeline.outpaint("a cat", draw_picture(), right=8, **settings)
    assert wide.size == (WIDTH + 8, HEIGHT)
    np.testing.assert_array_equal(np.asarray(wide)[:, :WIDTH], np.asarray(draw_picture()))


@pytest.mark.parametrize("family", ["sd1, nine channels", "flux, fill"])
def test_an_inpainting_model_refuses_texts_and_pictures_alone(models, family):
    folder, _ = models(family)
    with open_pipeline(DiffusionConfig(model_path=folder, engine="paddle")) as pipeline:
        for draw in (
            lambda: pipeline.text_to_image("a cat"),
            lambda: pipeline.image_to_image("a cat", draw_picture()),
        ):
            with pytest.raises(RequestError, match="an inpainting model, and there is no mask"):
                draw()
