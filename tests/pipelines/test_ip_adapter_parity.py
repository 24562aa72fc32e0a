"""IP-Adapters against diffusers' pipelines with them: same weights, pictures and seed."""

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from diffusers_folder import write_diffusers_folder
from drawn_parameters import draw_reference_parameters
from PIL import Image
from sdxl_folder import write_sdxl_folder
from tiny_ip_adapter import write_tiny_image_encoder, write_tiny_ip_adapter
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

from fastdeploy_diffusion import DiffusionConfig, SDPipeline, SDXLPipeline

LEAST = 90  # dB


def draw_picture(seed, width=45, height=33):
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))


ONE, OTHER, THIRD = (draw_picture(seed, 45 + 9 * seed) for seed in range(3))
MASK = Image.fromarray(np.kron([[0, 255], [255, 0]], np.ones((16, 16))).astype(np.uint8))
NEGATIVE = {"negative_prompt": "ugly"}
# name → (adapters, pictures, scales, settings)
REQUESTS = {
    "base": (["base"], [ONE], [0.7], {}),
    "plus": (["plus"], [ONE], [0.7], NEGATIVE),
    "base, no guidance": (["base"], [ONE], [1.0], {"guidance_scale": 1.0}),
    "plus, no guidance": (["plus"], [ONE], [1.0], {"guidance_scale": 1.0}),
    "base, several pictures": (["base"], [[ONE, OTHER, THIRD]], [0.6], {}),
    "plus, several pictures": (["plus"], [[ONE, OTHER]], [1.4], {}),
    "two": (["base", "plus"], [ONE, [OTHER, THIRD]], [0.5, 0.8], NEGATIVE),
    "two, no guidance": (["plus", "base"], [ONE, OTHER], [0.5, 1.2], {"guidance_scale": 1.0}),
    "two of a kind": (["plus", "plus-other"], [ONE, OTHER], [0.9, 0.4], {}),
    "one counts nothing": (["base", "plus"], [ONE, OTHER], [0.0, 0.8], {}),
    "two drawn at once": (["base"], [ONE], [0.7], {"num_images_per_prompt": 2}),
    "plus, two drawn at once": (["plus"], [ONE], [0.7], {"num_images_per_prompt": 2}),
}
KINDS = ("base", "plus", "plus-other")


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def family(request, tmp_path_factory):
    """(folder, diffusers' parts, our class, diffusers' by the kind of request)."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "sdxl":
        reference = write_sdxl_folder(folder, seed=20261130)
        ours, theirs = (
            SDXLPipeline,
            {
                "text": StableDiffusionXLPipeline,
                "image": StableDiffusionXLImg2ImgPipeline,
                "mask": StableDiffusionXLInpaintPipeline,
                "control": StableDiffusionXLControlNetPipeline,
            },
        )
    else:
        reference = write_diffusers_folder(folder, request.param, seed=20261130)
        ours, theirs = (
            SDPipeline,
            {
                "text": StableDiffusionPipeline,
                "image": StableDiffusionImg2ImgPipeline,
                "mask": StableDiffusionInpaintPipeline,
                "control": StableDiffusionControlNetPipeline,
            },
        )
    write_tiny_image_encoder(folder / "image_encoder")
    for seed, kind in enumerate(KINDS):
        name, model = f"{kind}.safetensors", folder / "model"
        write_tiny_ip_adapter(folder / name, model, kind.partition("-")[0], seed=seed)
    net = ControlNetModel.from_unet(
        reference.unet, conditioning_embedding_out_channels=(6, 12), load_weights_from_unet=False
    )
    draw_reference_parameters(net, 1)
    net.eval().save_pretrained(folder / "net")
    return folder, reference, ours, theirs


def compare(family, kinds, pictures, scales, settings, kind="text", given=None, theirs=None):
    """PSNR of our picture to diffusers'.

    Args:
        given: What our request has besides, and what theirs has, where that differs.
    """
    folder, reference, ours, classes = family
    adapters = [folder / f"{each}.safetensors" for each in kinds]
    own, other = given or {}, theirs or given or {}
    nets = {"controlnets": [folder / "net"]} if kind == "control" else {}
    config = DiffusionConfig(
        model_path=folder / "model",
        ip_adapters=[
            {"path": path, "scale": scale} for path, scale in zip(adapters, scales, strict=True)
        ],
        scheduler="ddim",
        engine="paddle-eager",
        **nets,
    )
    settings = {"num_inference_steps": 4, "output_type": "np", **settings}
    with ours(config) as opened:
        drawn = opened.generate(
            "a red circle", ip_adapter_image=pictures, seed=4, **settings, **own
        ).images

    parts = dict(reference.components)
    parts["scheduler"] = DDIMScheduler.from_pretrained(folder / "model" / "scheduler")
    parts["image_encoder"] = CLIPVisionModelWithProjection.from_pretrained(
        folder / "image_encoder"
    ).eval()
    parts["feature_extractor"] = CLIPImageProcessorPil(size=32, crop_size=32)
    if kind == "control":
        parts["controlnet"] = ControlNetModel.from_pretrained(folder / "net").eval()
    before = dict(parts["unet"].attn_processors)
    pipeline = classes[kind](**parts)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_ip_adapter(
        str(folder),
        subfolder="",
        weight_name=[path.name for path in adapters],
        low_cpu_mem_usage=False,
    )
    pipeline.set_ip_adapter_scale(list(scales))
    try:
        seeds = range(4, 4 + settings.get("num_images_per_prompt", 1))
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        wanted = pipeline(
            "a red circle", ip_adapter_image=pictures, generator=generators, **settings, **other
        ).images
    finally:  # the next test has the same UNet
        parts["unet"].encoder_hid_proj = None  # a resampler has processors of its own
        parts["unet"].set_attn_processor(before)
        parts["unet"].config.encoder_hid_dim_type = None
    assert drawn.shape == wanted.shape
    assert wanted.std() > 0.01
    return -10 * np.log10(np.mean((drawn - wanted) ** 2) + 1e-20)


@pytest.mark.parametrize(
    ("kinds", "pictures", "scales", "settings"), REQUESTS.values(), ids=REQUESTS.keys()
)
def test_requests(family, kinds, pictures, scales, settings):
    assert compare(family, kinds, pictures, scales, settings) >= LEAST


def test_image_to_image(family):
    settings = {"strength": 0.6, "image": draw_picture(7, 32, 32)}
    assert compare(family, ["plus"], [ONE], [0.7], settings, "image") >= LEAST


def test_inpainting(family):
    image = {"image": draw_picture(7, 32, 32), "strength": 0.8}
    own, theirs = {**image, "mask": MASK}, {**image, "mask_image": MASK}
    sizes = {"height": 32, "width": 32}
    given = compare(family, ["base"], [ONE], [0.7], sizes, "mask", own, theirs)
    assert given >= LEAST


def test_with_a_controlnet(family):
    edges = draw_picture(3, 32, 32)
    own = {"control_image": edges, "controlnet_conditioning_scale": 0.8}
    theirs = {"image": edges, "controlnet_conditioning_scale": 0.8}
    kinds, pictures = ["base", "plus"], [ONE, OTHER]
    assert compare(family, kinds, pictures, [0.5, 0.8], {}, "control", own, theirs) >= LEAST
