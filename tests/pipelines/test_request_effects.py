"""Every field of a request changes what it should: no option is read and then forgotten."""

from dataclasses import fields, replace

import numpy as np
import pytest
from tiny_controlnet import write_tiny_controlnet

from fastdeploy_diffusion import DiffusionConfig, FluxPipeline, SDPipeline, SDXLPipeline
from fastdeploy_diffusion.images import read_metadata
from fastdeploy_diffusion.noise import TorchGenerator
from fastdeploy_diffusion.predictors.packing import pack
from fastdeploy_diffusion.requests.control import CONTROL_FIELDS
from fastdeploy_diffusion.requests.image_prompt import IMAGE_PROMPT_FIELDS

COMMON = {"height": 16, "width": 24, "num_inference_steps": 2, "seed": 3, "output_type": "np"}
BASE = {
    "sd": {**COMMON, "guidance_scale": 3.0, "negative_prompt": "a dog"},
    "sdxl": {**COMMON, "guidance_scale": 3.0, "negative_prompt": "a dog"},
    "flux": {**COMMON, "true_cfg_scale": 2.0, "negative_prompt": "a dog"},
}
PICTURE = np.random.default_rng(4).integers(0, 256, (16, 24, 3), np.uint8)
SIZES = {"original_size": (40, 56), "target_size": (40, 56)}
NEGATIVE = ("negative_original_size", "negative_target_size")

# Field → what is given besides the base; each must change the pictures.
CHANGES = {
    "prompt": {"prompt": "a red circle"},
    "negative_prompt": {"negative_prompt": "a red circle"},
    "height": {"height": 24},
    "width": {"width": 16},
    "num_inference_steps": {"num_inference_steps": 3},
    "timesteps": {"timesteps": (900, 300), "scheduler": "euler"},
    "guidance_scale": {"guidance_scale": 5.0},
    "guidance_rescale": {"guidance_rescale": 0.7},
    "num_images_per_prompt": {"num_images_per_prompt": 2},
    "seed": {"seed": 4},
    "scheduler": {"scheduler": "euler"},
    "eta": {"eta": 0.9},
    "latents": {},  # made for the family, below
    "prompt_syntax": {},  # has tests of its own: test_weighted_prompts.py
    "prompt_chunks": {"prompt_syntax": "weighted", "prompt_chunks": 2},
    "clip_skip": {"clip_skip": 1},
    "image": {"image": PICTURE, "strength": 0.5},
    "strength": {},  # these have tests of their own, below and in test_inpainting
    "image_guidance_scale": {},  # test_instructed_parity
    "hires_scale": {"hires_scale": 1.5, "hires_strength": 0.6},
    "hires_strength": {},  # test_hires
    "hires_upscaler": {},
    "resize_mode": {},
    "mask": {"image": PICTURE, "mask": PICTURE[..., 0] > 99},
    "mask_blur": {},
    "padding_mask_crop": {},
    "overlay": {},
    "control_image": {"control_image": PICTURE},
    **{name: {} for name in CONTROL_FIELDS[1:]},  # likewise
    **{name: {} for name in IMAGE_PROMPT_FIELDS},  # in test_image_prompts
    "output_type": {"output_type": "latent"},
    "callback_on_step_end": {
        "callback_on_step_end": lambda pipeline, step, timestep, tensors: {
            "latents": tensors["latents"] * np.float32(0.5)
        }
    },
    "callback_on_step_end_tensor_inputs": {},  # has a test of its own, below
    "denoising_start": {"image": PICTURE, "denoising_start": 0.5},
    "denoising_end": {"denoising_end": 0.5},
    "aesthetic_score": {},  # test_refiner_parity
    "negative_aesthetic_score": {},
    "prompt_2": {"prompt_2": "a red circle"},
    "negative_prompt_2": {"negative_prompt_2": "a red circle"},
    "true_cfg_scale": {"true_cfg_scale": 4.0},
    "sigmas": {"sigmas": (0.9, 0.4)},
    "max_sequence_length": {"max_sequence_length": 16},
    "original_size": {"original_size": SIZES["original_size"]},
    "crops_coords_top_left": {"crops_coords_top_left": (5, 7)},
    "target_size": {"target_size": SIZES["target_size"]},
    "negative_original_size": {
        "negative_original_size": SIZES["original_size"],
        "negative_target_size": (16, 24),
    },
    "negative_crops_coords_top_left": {
        "negative_crops_coords_top_left": (5, 7),
        **dict.fromkeys(NEGATIVE, (40, 56)),
    },
    "negative_target_size": {
        "negative_target_size": SIZES["target_size"],
        "negative_original_size": (16, 24),
    },
}
# What means something else with a UNet.
OF_UNETS = {"sigmas": {"sigmas": (9.0, 2.0, 0.0), "scheduler": "euler"}}
# Refused there.
NOT_OF_FLUX = {
    "guidance_rescale",
    "scheduler",
    "eta",
    "timesteps",
    "clip_skip",
    "prompt_chunks",
    "control_image",
}
CLASSES = {"sd": SDPipeline, "sdxl": SDXLPipeline, "flux": FluxPipeline}
CASES = [
    (family, each.name)
    for family, opened in CLASSES.items()
    for each in fields(opened.request_class)
    if CHANGES[each.name] and not (family == "flux" and each.name in NOT_OF_FLUX)
]


@pytest.fixture(scope="module")
def pipelines(tiny_sd1, tiny_sdxl, tiny_dev, tmp_path_factory):
    models = {"sd": tiny_sd1, "sdxl": tiny_sdxl, "flux": tiny_dev}
    made = {}
    for family, model in models.items():
        own = {}
        if family != "flux":
            folder = tmp_path_factory.mktemp("nets") / family
            own = {"scheduler": "ddim", "controlnets": [write_tiny_controlnet(folder, model)]}
        config = DiffusionConfig(model_path=model, engine="paddle-eager", **own)
        made[family] = CLASSES[family](config)
    return made


@pytest.fixture(scope="module")
def plain(pipelines):
    return {family: draw(pipelines, family) for family in pipelines}


def draw(pipelines, family, **changes):
    pipeline = pipelines[family]
    request = pipeline.request_class(prompt="a cat", **BASE[family])
    return pipeline.generate(replace(request, **changes)).images


@pytest.mark.parametrize(("family", "name"), CASES)
def test_each_field_has_an_effect(pipelines, plain, family, name):
    changes = CHANGES if family == "flux" else {**CHANGES, **OF_UNETS}
    changed = draw(pipelines, family, **changes[name])
    before = plain[family]
    if changed.shape == before.shape:
        assert not np.array_equal(changed, before)
    else:
        assert name in ("height", "width", "num_images_per_prompt", "output_type", "hires_scale")
    if name == "negative_original_size":  # it is told apart from the other size
        other = draw(pipelines, family, **CHANGES["negative_target_size"])
        assert not np.array_equal(changed, other)


@pytest.mark.parametrize("family", CLASSES)
def test_the_same_request_gives_the_same_pictures(pipelines, plain, family):
    np.testing.assert_array_equal(draw(pipelines, family), plain[family])


def test_the_callback_gets_the_tensors_that_are_named(pipelines):
    for family in pipelines:
        for names in (("latents",), ("prompt_embeds", "negative_prompt_embeds"), ()):
            seen = []
            draw(
                pipelines,
                family,
                output_type="latent",
                callback_on_step_end=lambda *given, seen=seen: seen.append(tuple(given[3])),
                callback_on_step_end_tensor_inputs=names,
            )
            assert seen == [names, names]


@pytest.mark.parametrize("family", CLASSES)
def test_latents_of_the_seed_are_those_that_are_drawn(pipelines, plain, family):
    pipeline = pipelines[family]
    scale, channels = pipeline._vae.config.downscale, pipeline._vae.config.latent_channels
    noise = TorchGenerator(3).randn((1, channels, 16 // scale, 24 // scale))
    latents = pack(noise) if family == "flux" else noise
    np.testing.assert_array_equal(draw(pipelines, family, latents=latents), plain[family])
    assert np.abs(draw(pipelines, family, latents=-latents) - plain[family]).max() > 1e-4


@pytest.mark.parametrize("family", CLASSES)
def test_a_picture_of_given_latents_says_that_its_settings_do_not_make_it_again(pipelines, family):
    latents = draw(pipelines, family, output_type="latent")
    (given,) = draw(pipelines, family, output_type="pil", latents=latents)
    assert "given by the caller" in read_metadata(given)["run"]["latents"]
    (drawn,) = draw(pipelines, family, output_type="pil")
    assert "latents" not in read_metadata(drawn)["run"]


def test_given_latents_are_scaled_to_the_first_sigma(tiny_sd1):
    pipeline = SDPipeline(
        DiffusionConfig(model_path=tiny_sd1, engine="paddle-eager", scheduler="euler")
    )
    asked = {"height": 16, "width": 16, "num_inference_steps": 2, "output_type": "np", "seed": 3}
    drawn = pipeline.text_to_image("a cat", **asked)
    given = TorchGenerator(3).randn((1, 4, 8, 8))
    np.testing.assert_array_equal(pipeline.text_to_image("a cat", **asked, latents=given), drawn)


@pytest.mark.parametrize("family", CLASSES)
def test_strength_and_resize_mode_change_what_a_picture_becomes(pipelines, family):
    wide = np.concatenate([PICTURE, PICTURE[:, ::-1]], axis=1)
    drawn = [draw(pipelines, family, image=PICTURE, strength=each) for each in (0.5, 1.0)]
    drawn += [
        draw(pipelines, family, image=wide, strength=0.5, resize_mode=each)
        for each in ("stretch", "crop", "pad")
    ]
    assert len({each.tobytes() for each in drawn}) == 5


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_settings_of_a_control_change_what_it_does(pipelines, family):
    changes = (
        {},
        {"controlnet_conditioning_scale": 0.5},
        {"control_guidance_start": 0.5},
        {"control_guidance_end": 0.5},
        {"guess_mode": True},
        {"control_preprocess": "canny"},
    )
    drawn = [draw(pipelines, family, control_image=PICTURE, **each) for each in changes]
    assert len({each.tobytes() for each in drawn}) == len(changes)
