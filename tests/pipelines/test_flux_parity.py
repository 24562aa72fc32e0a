"""FluxPipeline against diffusers' own: same weights and seed."""

import numpy as np
import pytest
import torch
from flux_folder import write_flux_folder
from picture_psnr import psnr

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.pipelines.flux import FluxPipeline

pytestmark = pytest.mark.slow

LEAST = 120  # dB: what is right has 132 and more here
SMALL = {"height": 32, "width": 32, "max_sequence_length": 24, "output_type": "np"}
# name → (whether it is like dev, settings)
REQUESTS = {
    "dev": (True, {"guidance_scale": 4.5, "num_inference_steps": 5}),
    "schnell": (False, {"num_inference_steps": 3}),
    "true guidance": (
        True,
        {
            "negative_prompt": "a dog",
            "negative_prompt_2": "ugly",
            "true_cfg_scale": 4.0,
            "num_inference_steps": 3,
        },
    ),
    "schnell, true guidance, two texts": (
        False,
        {
            "prompt_2": "a beautiful sunset over mountains",
            "negative_prompt": "",
            "true_cfg_scale": 2.5,
            "num_inference_steps": 2,
        },
    ),
    "not square": (True, {"height": 20, "width": 44, "num_inference_steps": 2}),
    "sigmas": (True, {"sigmas": [1.0, 0.7, 0.2]}),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """By whether it is like dev: (our pipeline, diffusers' pipeline), with random weights."""
    found = {}
    for is_dev in (True, False):
        folder = tmp_path_factory.mktemp("dev" if is_dev else "schnell")
        reference = write_flux_folder(folder, is_dev=is_dev, seed=20261121)
        found[is_dev] = (
            FluxPipeline(DiffusionConfig(model_path=folder / "model", engine="paddle")),
            reference,
        )
    return found


@pytest.mark.parametrize(("is_dev", "settings"), REQUESTS.values(), ids=REQUESTS.keys())
def test_requests(models, is_dev, settings):
    ours, reference = models[is_dev]
    settings = {**SMALL, **settings}
    given = ours.text_to_image("the cat's whiskers", seed=11, **settings)
    wanted = reference(
        "the cat's whiskers", generator=torch.Generator().manual_seed(11), **settings
    ).images
    assert psnr(given, wanted) >= LEAST


def test_batch_of_two_prompts_with_two_pictures_each(models):
    ours, reference = models[True]
    settings = {**SMALL, "num_images_per_prompt": 2, "num_inference_steps": 2}
    prompts = ["a dog", "一只可爱的猫"]
    given = ours.text_to_image(prompts, seed=[5, 6, 7, 8], **settings)
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6, 7, 8)]
    wanted = reference(prompts, generator=generators, **settings).images
    assert psnr(given, wanted) >= LEAST


def test_latents_in_and_out(models):
    ours, reference = models[False]
    latents = np.random.default_rng(0).standard_normal((1, 64, 16), np.float32)
    settings = {**SMALL, "num_inference_steps": 2, "output_type": "latent"}
    given = ours.text_to_image("a dog", latents=latents, **settings)
    wanted = reference("a dog", latents=torch.tensor(latents), **settings).images.numpy()
    assert np.abs(given - wanted).max() <= 1e-4 * np.abs(wanted).max()
