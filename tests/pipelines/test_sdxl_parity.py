"""SDXLPipeline against diffusers' StableDiffusionXLPipeline: same weights and seed."""

import numpy as np
import pytest
import torch
from picture_psnr import psnr
from sdxl_folder import write_sdxl_folder

from fastdeploy_diffusion import DiffusionConfig, SDXLPipeline

SMALL = {"num_inference_steps": 2, "output_type": "np"}
LEAST = 120  # dB: what is right has 129 and more here, and a wrong crop has 48
NEGATIVE_SIZES = {
    "negative_original_size": (24, 32),
    "negative_crops_coords_top_left": (3, 1),
    "negative_target_size": (512, 256),
}
# name → (whether zeros take the place of no negative prompt, settings)
REQUESTS = {
    "plain": (True, {}),
    "no zeros": (False, {}),
    "no zeros, one negative text": (False, {"negative_prompt_2": "ugly"}),
    "empty negative prompt, not square": (
        True,
        {"negative_prompt": "", "height": 24, "width": 40},
    ),
    "four texts": (
        True,
        {"prompt_2": "a red circle", "negative_prompt": "ugly", "negative_prompt_2": "a dog"},
    ),
    "sizes": (
        True,
        {"original_size": (640, 480), "crops_coords_top_left": (5, 7), "target_size": (99, 98)},
    ),
    "sizes of the negative prompt": (True, {"original_size": (900, 800), **NEGATIVE_SIZES}),
    "no guidance": (True, {"guidance_scale": 1.0}),
    "clip skip, rescaled": (
        True,
        {"clip_skip": 1, "negative_prompt": "ugly", "guidance_rescale": 0.6},
    ),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """By whether zeros take the place of no negative prompt: (our pipeline, diffusers')."""
    found = {}
    for forces_zeros in (True, False):
        folder = tmp_path_factory.mktemp("zeros" if forces_zeros else "texts")
        reference = write_sdxl_folder(folder, seed=20261122, forces_zeros=forces_zeros)
        config = DiffusionConfig(model_path=folder / "model", engine="paddle-eager")
        found[forces_zeros] = SDXLPipeline(config), reference
    return found


def seed_all(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize(("forces_zeros", "settings"), REQUESTS.values(), ids=REQUESTS.keys())
def test_requests(models, forces_zeros, settings):
    ours, reference = models[forces_zeros]
    settings = {**SMALL, **settings}
    given = ours.text_to_image("the cat's whiskers", seed=11, **settings)
    wanted = reference("the cat's whiskers", generator=seed_all(11), **settings).images
    assert psnr(given, wanted) >= LEAST


def test_batch_of_two_prompts_with_two_pictures_each(models):
    ours, reference = models[True]
    settings = {
        **SMALL,
        "num_images_per_prompt": 2,
        "prompt_2": ["a red circle", "a small dog"],
        "negative_prompt": ["ugly", ""],
        "negative_prompt_2": ["", "blue"],
    }
    prompts, seeds = ["a dog", "一只可爱的猫"], [5, 6, 7, 8]
    given = ours.text_to_image(prompts, seed=seeds, **settings)
    wanted = reference(prompts, generator=seed_all(*seeds), **settings).images
    assert psnr(given, wanted) >= LEAST


def test_latents_in_and_out(models):
    ours, reference = models[True]
    latents = np.random.default_rng(0).standard_normal((1, 4, 16, 16), np.float32)
    settings = {**SMALL, "output_type": "latent"}
    given = ours.text_to_image("a dog", latents=latents, **settings)
    wanted = reference("a dog", latents=torch.tensor(latents), **settings).images.numpy()
    assert np.abs(given - wanted).max() <= 1e-4 * np.abs(wanted).max()
