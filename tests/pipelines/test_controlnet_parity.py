"""ControlNets against diffusers' pipelines with them: same weights, scheduler, picture and seed."""

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionControlNetInpaintPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLControlNetImg2ImgPipeline,
    StableDiffusionXLControlNetInpaintPipeline,
    StableDiffusionXLControlNetPipeline,
)
from diffusers_folder import write_diffusers_folder
from drawn_parameters import draw_reference_parameters
from PIL import Image
from sdxl_folder import write_sdxl_folder

from fastdeploy_diffusion import DiffusionConfig, SDPipeline, SDXLPipeline

LEAST_8_BIT = 60  # dB: pictures that differ in their last bit
LEAST = 90  # dB: the least seen of what is right is 106, in guess mode with SDXL
SCHEDULERS = {
    "ddim": DDIMScheduler,
    "pndm": PNDMScheduler,
    "euler-ancestral": EulerAncestralDiscreteScheduler,
}
# name → (settings, indices of the ControlNets)
REQUESTS = {
    "scaled": ({"controlnet_conditioning_scale": 0.6}, (0,)),
    "no guidance": ({"guidance_scale": 1.0}, (0,)),
    "a part of the steps": ({"control_guidance_start": 0.3, "control_guidance_end": 0.8}, (0,)),
    "guess mode": ({"guess_mode": True, "controlnet_conditioning_scale": 0.9}, (0,)),
    "guess mode, no guidance": ({"guess_mode": True, "guidance_scale": 1.0}, (0,)),
    "two": ({"controlnet_conditioning_scale": [0.7, 1.2]}, (0, 1)),
    "two, each its own part": (
        {"control_guidance_start": [0.0, 0.5], "control_guidance_end": [0.5, 1.0]},
        (0, 1),
    ),
    "another size": ({"height": 40, "width": 24}, (0,)),
    "two pictures": ({"num_images_per_prompt": 2}, (0,)),
    "pooled": ({"controlnet_conditioning_scale": 0.8}, (2,)),
}
# Likewise, for image to image.
IMAGE_REQUESTS = {
    "scaled": ({"strength": 0.6, "controlnet_conditioning_scale": 0.7}, (0,)),
    "guess mode": (
        {"strength": 1.0, "guess_mode": True, "controlnet_conditioning_scale": 1.0},
        (0,),
    ),
    "two, each its own part": (
        {
            "strength": 0.8,
            "controlnet_conditioning_scale": [0.7, 1.2],
            "control_guidance_start": [0.0, 0.5],
            "control_guidance_end": [0.5, 1.0],
        },
        (0, 1),
    ),
}
# Likewise, for inpainting.
MASKED_REQUESTS = {
    **IMAGE_REQUESTS,
    "only what is masked": (
        {"strength": 0.8, "padding_mask_crop": 3, "controlnet_conditioning_scale": 0.9},
        (0,),
    ),
}


def draw_mask(width, height):
    mask = Image.new("L", (width, height))
    mask.paste(255, (width // 3, height // 4, width // 2 + 6, height // 2 + 3))
    return mask


def draw_picture(seed, width=32, height=32):
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))


def write_controlnets(folder, unet):
    """Three ControlNets with random weights, the zero convolutions' as well."""
    torch.manual_seed(0)
    found = []
    for index in range(3):
        net = ControlNetModel.from_unet(
            unet, conditioning_embedding_out_channels=(6, 12), load_weights_from_unet=False
        )
        # Of an inpainting UNet, it takes the latents alone.
        changes = {"in_channels": 4, "global_pool_conditions": index == 2}
        net = ControlNetModel.from_config({**net.config, **changes})
        draw_reference_parameters(net, index)
        net.eval().save_pretrained(folder / f"net-{index}")
        found.append(net)
    return found


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def family(request, tmp_path_factory):
    """(folder, diffusers' parts, its ControlNets, our class, diffusers' two)."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "sdxl":
        reference = write_sdxl_folder(folder, seed=20261130)
        classes = (
            SDXLPipeline,
            StableDiffusionXLControlNetPipeline,
            StableDiffusionXLControlNetImg2ImgPipeline,
            StableDiffusionXLControlNetInpaintPipeline,
        )
    else:
        reference = write_diffusers_folder(folder, request.param, seed=20261130)
        classes = (
            SDPipeline,
            StableDiffusionControlNetPipeline,
            StableDiffusionControlNetImg2ImgPipeline,
            StableDiffusionControlNetInpaintPipeline,
        )
    return folder, reference, write_controlnets(folder, reference.unet), classes


def compare(family, settings, chosen, scheduler="ddim", image=None, mask=None):
    folder, reference, nets, (ours, *theirs) = family
    config = DiffusionConfig(
        model_path=folder / "model",
        controlnets=[folder / f"net-{index}" for index in chosen],
        scheduler=scheduler,
        engine="paddle-eager",
    )
    parts = dict(reference.components)
    parts["scheduler"] = SCHEDULERS[scheduler].from_pretrained(folder / "model" / "scheduler")
    controlnets = [nets[index] for index in chosen]
    kind = theirs[(image is not None) + (mask is not None)]
    pipeline = kind(**parts, controlnet=controlnets if len(chosen) > 1 else controlnets[0])
    pipeline.set_progress_bar_config(disable=True)
    width, height = image.size if image else (32, 32)
    pictures = [draw_picture(index, width, height) for index in chosen]
    images = pictures if len(chosen) > 1 else pictures[0]
    # diffusers returns pictures alone of what it puts back into others.
    output = "pil" if "padding_mask_crop" in settings else "np"
    settings = {"num_inference_steps": 5, "output_type": output, **settings}
    seeds = range(4, 4 + settings.get("num_images_per_prompt", 1))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    with ours(config) as opened:
        if image is None:
            own = {"image": images}
            given = opened.text_to_image("a red circle", control_image=images, seed=4, **settings)
        else:
            own = {"image": image, "control_image": images}
            draw, masked = opened.image_to_image, {}
            if mask is not None:
                own, draw, masked = {**own, "mask_image": mask}, opened.inpaint, {"mask": mask}
                # By default, diffusers' two pipelines with masks of SDXL have other guidance.
                settings |= {"guidance_scale": 4.0, "width": width, "height": height}
            given = draw("a red circle", image, control_image=images, seed=4, **masked, **settings)
    wanted = pipeline("a red circle", generator=generators, **own, **settings).images
    if output == "pil":
        given, wanted = (np.asarray(each, np.float64) / 255 for each in (given, wanted[0]))
    assert given.shape == wanted.shape
    assert wanted.std() > 0.01
    return -10 * np.log10(np.mean((given - wanted) ** 2) + 1e-20)


@pytest.mark.parametrize(("settings", "chosen"), REQUESTS.values(), ids=REQUESTS.keys())
def test_requests(family, settings, chosen):
    assert compare(family, settings, chosen) >= LEAST


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers(family, scheduler):
    assert compare(family, {"negative_prompt": "ugly"}, (0,), scheduler) >= LEAST


@pytest.mark.parametrize(("settings", "chosen"), IMAGE_REQUESTS.values(), ids=IMAGE_REQUESTS.keys())
def test_image_to_image(family, settings, chosen):
    assert compare(family, settings, chosen, image=draw_picture(7, 24, 40)) >= LEAST


@pytest.mark.parametrize("guess_mode", [False, True])
def test_a_second_pass_is_controlled_as_well(family, guess_mode):
    """Text to image, latents enlarged, and image to image, each with the same control picture."""
    folder, reference, nets, (ours, *theirs) = family
    config = DiffusionConfig(
        model_path=folder / "model",
        controlnets=[folder / "net-0"],
        scheduler="ddim",
        engine="paddle-eager",
    )
    settings = {"num_inference_steps": 5, "guess_mode": guess_mode}
    settings["controlnet_conditioning_scale"] = 0.7
    control, size = draw_picture(0), {"height": 24, "width": 32}
    with ours(config) as opened:
        given = opened.text_to_image(
            "a red circle",
            control_image=control,
            seed=4,
            hires_scale=1.5,
            hires_strength=0.6,
            hires_upscaler="latent",
            output_type="np",
            **size,
            **settings,
        )
    parts = dict(reference.components)
    parts["scheduler"] = DDIMScheduler.from_pretrained(folder / "model" / "scheduler")
    text, over = (kind(**parts, controlnet=nets[0]) for kind in theirs[:2])
    for each in (text, over):
        each.set_progress_bar_config(disable=True)
    seeded = [torch.Generator().manual_seed(4) for _ in range(2)]
    small = text(
        "a red circle",
        image=control,
        generator=seeded[0],
        output_type="latent",
        **size,
        **settings,
    ).images
    rows, columns = (3 * each // 2 for each in small.shape[2:])
    wanted = over(
        "a red circle",
        image=torch.nn.functional.interpolate(small, (rows, columns), mode="bilinear"),
        control_image=control,
        height=36,
        width=48,
        strength=0.6,
        generator=seeded[1],
        output_type="np",
        **settings,
    ).images
    assert given.shape == wanted.shape == (1, 36, 48, 3)
    assert -10 * np.log10(np.mean((given - wanted) ** 2) + 1e-20) >= LEAST


@pytest.mark.parametrize(
    ("settings", "chosen"), MASKED_REQUESTS.values(), ids=MASKED_REQUESTS.keys()
)
def test_inpainting(family, settings, chosen):
    picture, mask = draw_picture(7, 24, 40), draw_mask(24, 40)
    least = LEAST_8_BIT if "padding_mask_crop" in settings else LEAST
    assert compare(family, settings, chosen, image=picture, mask=mask) >= least


def test_an_inpainting_model_of_nine_channels(tmp_path):
    reference = write_diffusers_folder(tmp_path, "sd1", seed=20261201, channels=9)
    nets = write_controlnets(tmp_path, reference.unet)
    family = (
        tmp_path,
        reference,
        nets,
        (SDPipeline, *[StableDiffusionControlNetInpaintPipeline] * 3),
    )
    picture, mask = draw_picture(7, 24, 40), draw_mask(24, 40)
    for settings in ({"strength": 1.0, "controlnet_conditioning_scale": 0.9}, {"strength": 0.6}):
        more = {"controlnet_conditioning_scale": 0.5, **settings}
        assert compare(family, more, (0,), image=picture, mask=mask) >= LEAST
