"""The second pass against diffusers: text to image, enlarged alike, then image to image."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FluxImg2ImgPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
)
from diffusers_folder import write_diffusers_folder
from flux_folder import write_flux_folder
from picture_psnr import psnr
from PIL import Image
from sdxl_folder import write_sdxl_folder

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.pipelines.opening import open_pipeline
from fastdeploy_diffusion.predictors.enlarging import enlarge_latents

LEAST = 100  # dB: what is right has 120 and more
LEAST_8_BIT = 60  # between the passes, a value may be rounded the other way
SEED, WIDTH, HEIGHT = 20261202, 24, 16
OVER = {
    "sd1": StableDiffusionImg2ImgPipeline,
    "sdxl": StableDiffusionXLImg2ImgPipeline,
    "flux": FluxImg2ImgPipeline,
}
SCHEDULERS = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler}
SCHEDULERS["euler-ancestral"] = EulerAncestralDiscreteScheduler
CASES = [
    ("sd1", "ddim"),
    ("sd1", "euler-ancestral"),
    ("sdxl", "euler"),
    ("flux", None),
]
PROMPT = "a red circle"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Make (folder, diffusers' pipelines of texts and of pictures) of a family."""
    made = {}

    def make(family):
        if family not in made:
            folder, more = tmp_path_factory.mktemp("model"), {}
            if family == "sdxl":
                text = write_sdxl_folder(folder, seed=SEED)
            elif family == "flux":
                text = write_flux_folder(folder, is_dev=True, seed=SEED)
            else:
                text = write_diffusers_folder(folder, family, seed=SEED)
                more = {"requires_safety_checker": False}
            over = OVER[family](**text.components, **more)
            for each in (text, over):
                each.set_progress_bar_config(disable=True)
            made[family] = folder / "model", text, over
        return made[family]

    return make


def settings_of(family):
    settings = {"num_inference_steps": 5, "guidance_scale": 4.0}
    return {**settings, "max_sequence_length": 24} if family == "flux" else settings


def draw_twice(models, family, scheduler, scale, strength, upscaler):
    folder, text, over = models(family)
    if scheduler is not None:
        for each in (text, over):
            each.scheduler = SCHEDULERS[scheduler].from_pretrained(folder / "scheduler")
    settings, size = settings_of(family), (int(WIDTH * scale), int(HEIGHT * scale))
    seeded = [torch.Generator().manual_seed(11) for _ in range(2)]
    kind = "latent" if upscaler == "latent" else "pil"
    small = text(
        PROMPT, height=HEIGHT, width=WIDTH, generator=seeded[0], output_type=kind, **settings
    ).images
    if upscaler == "latent":
        if family == "flux":
            factor = text.vae_scale_factor
            small = text._unpack_latents(small, HEIGHT, WIDTH, factor)
        factor = WIDTH // small.shape[-1]
        smaller = size[1] // factor, size[0] // factor
        large = torch.nn.functional.interpolate(small, smaller, mode="bilinear")
    else:
        large = small[0].resize(size, Image.Resampling.LANCZOS)
    more = {"width": size[0], "height": size[1]} if family == "flux" else {}
    return over(
        PROMPT,
        image=large,
        strength=strength,
        generator=seeded[1],
        output_type="np",
        **settings,
        **more,
    ).images


@pytest.mark.parametrize(("family", "scheduler"), CASES)
@pytest.mark.parametrize("upscaler", ["lanczos", "latent"])
def test_pictures_are_those_of_diffusers(models, family, scheduler, upscaler):
    folder, *_ = models(family)
    config = DiffusionConfig(model_path=folder, scheduler=scheduler, engine="paddle-eager")
    settings = {**settings_of(family), "height": HEIGHT, "width": WIDTH, "output_type": "np"}
    least = LEAST if upscaler == "latent" else LEAST_8_BIT
    with open_pipeline(config) as pipeline:
        for scale, strength in ((2, 0.4), (1.5, 0.8)):
            given = pipeline.text_to_image(
                PROMPT,
                seed=11,
                hires_scale=scale,
                hires_strength=strength,
                hires_upscaler=upscaler,
                **settings,
            )
            wanted = draw_twice(models, family, scheduler, scale, strength, upscaler)
            assert psnr(given, wanted) >= least, (scale, strength)


@pytest.mark.parametrize("size", [(7, 9), (10, 13), (5, 6), (6, 16)])
def test_latents_are_enlarged_as_torch_does(size):
    latents = np.random.default_rng(0).standard_normal((2, 4, 5, 6), np.float32)
    wanted = torch.nn.functional.interpolate(torch.tensor(latents), size, mode="bilinear").numpy()
    np.testing.assert_allclose(enlarge_latents(latents, *size), wanted, atol=2e-6)
