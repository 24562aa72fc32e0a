"""SDXL with its refiner against diffusers: same weights, scheduler and seed."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
)
from picture_psnr import psnr
from PIL import Image
from sdxl_folder import write_refiner_folder, write_sdxl_folder

from fastdeploy_diffusion import DiffusionConfig, SDXLPipeline

LEAST = 100  # dB: what is right has 120 and more
SEED = 20261201
PROMPT = "the cat's whiskers"
SMALL = {"num_inference_steps": 5, "height": 24, "width": 32, "output_type": "np"}
SCHEDULERS = {
    "euler": EulerDiscreteScheduler,
    "ddim": DDIMScheduler,
    "dpm-solver": DPMSolverMultistepScheduler,
    "euler-ancestral": EulerAncestralDiscreteScheduler,
    "heun": HeunDiscreteScheduler,
}
SCORES = {"aesthetic_score": 9.0, "negative_aesthetic_score": 1.0}
REQUESTS = {
    "plain": {},
    "scores": SCORES,
    "negative prompt": {"negative_prompt": "ugly", "guidance_scale": 3.0},
    "no guidance": {"guidance_scale": 1.0},
    "sizes": {"original_size": (640, 480), "crops_coords_top_left": (5, 7), "clip_skip": 1},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folders = [tmp_path_factory.mktemp(name) for name in ("base", "refiner")]
    references = write_sdxl_folder(folders[0], SEED), write_refiner_folder(folders[1], SEED + 1)
    return folders[0] / "model", folders[1] / "refiner", *references


@pytest.fixture(scope="module")
def both(models):
    base, refiner, *_ = models
    config = DiffusionConfig(model_path=base, refiner=refiner, engine="paddle-eager")
    with SDXLPipeline(config) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def refiner(models):
    with SDXLPipeline(DiffusionConfig(model_path=models[1], engine="paddle-eager")) as pipeline:
        yield pipeline


def draw_picture(width=32, height=24):
    colours = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(colours)


def draw_with_both(models, scheduler, end, seed=11, **settings):
    """Draw with diffusers: the base model's latents are handed to the refiner, with the noise."""
    _, _, base, refiner = models
    for each in (base, refiner):
        each.scheduler = SCHEDULERS[scheduler].from_config(each.scheduler.config)
    generator = torch.Generator().manual_seed(seed)
    of_base = {name: value for name, value in settings.items() if name not in SCORES}
    of_base["output_type"] = "latent"
    latents = base(PROMPT, denoising_end=end, generator=generator, **of_base).images
    of_refiner = {
        name: value for name, value in settings.items() if name not in ("height", "width")
    }
    return refiner(
        PROMPT, image=latents, denoising_start=end, generator=generator, **of_refiner
    ).images


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("end", [0.6, 0.8])
def test_base_and_refiner(models, both, scheduler, end):
    given = both.text_to_image(PROMPT, denoising_end=end, seed=11, scheduler=scheduler, **SMALL)
    assert psnr(given, draw_with_both(models, scheduler, end, **SMALL)) >= LEAST


@pytest.mark.parametrize("settings", REQUESTS.values(), ids=REQUESTS)
def test_requests(models, both, settings):
    settings = {**SMALL, **settings}
    given = both.text_to_image(PROMPT, seed=11, scheduler="euler", **settings)
    assert psnr(given, draw_with_both(models, "euler", 0.8, **settings)) >= LEAST


def test_latents_between_are_those_of_diffusers(models, refiner):
    base, _, reference, _ = models
    reference.scheduler = EulerDiscreteScheduler.from_config(reference.scheduler.config)
    settings = {**SMALL, "output_type": "latent", "denoising_end": 0.6}
    generator = torch.Generator().manual_seed(3)
    wanted = reference(PROMPT, generator=generator, **settings).images.numpy()
    with SDXLPipeline(DiffusionConfig(model_path=base, engine="paddle-eager")) as alone:
        given = alone.text_to_image(PROMPT, seed=3, scheduler="euler", **settings)
    assert np.abs(given - wanted).max() <= 1e-4 * np.abs(wanted).max()
    settings = {"num_inference_steps": 5, "output_type": "np"}  # the size is that of the latents
    drawn = refiner.image_to_image(
        PROMPT, given, denoising_start=0.6, seed=3, scheduler="euler", **settings
    )
    wanted = draw_with_both(models, "euler", 0.6, seed=3, **SMALL)
    assert psnr(drawn, wanted) >= LEAST


@pytest.mark.parametrize(
    "settings",
    [
        {"strength": 0.7},
        {"denoising_start": 0.5, **SCORES},
        {"denoising_start": 0.3, "denoising_end": 0.7},
    ],
    ids=["strength", "start and scores", "start and end"],
)
@pytest.mark.parametrize("scheduler", ["euler", "heun"])
def test_a_refiner_alone_draws_over_pictures(models, refiner, settings, scheduler):
    reference = models[3]
    reference.scheduler = SCHEDULERS[scheduler].from_config(reference.scheduler.config)
    settings = {"num_inference_steps": 6, "output_type": "np", **settings}
    given = refiner.image_to_image(PROMPT, draw_picture(), seed=5, scheduler=scheduler, **settings)
    generator = torch.Generator().manual_seed(5)
    wanted = reference(PROMPT, image=draw_picture(), generator=generator, **settings).images
    assert psnr(given, wanted) >= LEAST


@pytest.mark.parametrize("strength", [0.5, 0.9999])
@pytest.mark.parametrize("scheduler", ["euler", "ddim"])
def test_a_refiner_alone_paints_parts_anew(models, refiner, strength, scheduler):
    reference = StableDiffusionXLInpaintPipeline(
        **models[3].components,
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=models[3].config.force_zeros_for_empty_prompt,
        add_watermarker=False,
    )
    reference.scheduler = SCHEDULERS[scheduler].from_config(models[3].scheduler.config)
    reference.set_progress_bar_config(disable=True)
    mask = np.zeros((24, 32), np.uint8)
    mask[4:20, 8:24] = 255
    settings = {"num_inference_steps": 6, "output_type": "np", "strength": strength, **SCORES}
    given = refiner.inpaint(
        PROMPT, draw_picture(), Image.fromarray(mask), seed=5, scheduler=scheduler, **settings
    )
    wanted = reference(
        PROMPT,
        image=draw_picture(),
        mask_image=Image.fromarray(mask),
        height=24,
        width=32,
        generator=torch.Generator().manual_seed(5),
        **settings,
    ).images
    assert psnr(given, wanted) >= LEAST


def test_the_base_model_begins_late_over_a_picture(models):
    base, _, reference, _ = models
    over = StableDiffusionXLImg2ImgPipeline(**reference.components, add_watermarker=False)
    over.scheduler = DDIMScheduler.from_config(reference.scheduler.config)
    over.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 6, "output_type": "np", "denoising_start": 0.5}
    with SDXLPipeline(DiffusionConfig(model_path=base, engine="paddle-eager")) as alone:
        given = alone.image_to_image(PROMPT, draw_picture(), seed=5, scheduler="ddim", **settings)
    generator = torch.Generator().manual_seed(5)
    wanted = over(PROMPT, image=draw_picture(), generator=generator, **settings).images
    assert psnr(given, wanted) >= LEAST


def test_two_pictures_of_two_prompts(models, both):
    prompts, seeds = [PROMPT, "a dog"], [7, 8]
    settings = {**SMALL, "scheduler": "euler-ancestral", "denoising_end": 0.6}
    given = both.text_to_image(prompts, seed=seeds, **settings)
    for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        alone = both.text_to_image(prompt, seed=seed, **settings)
        assert psnr(given[index : index + 1], alone) >= LEAST
