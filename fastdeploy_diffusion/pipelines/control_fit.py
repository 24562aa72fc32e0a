"""Checks that a ControlNet is one for a pipeline's UNet: what it adds must have the same shapes."""

from pathlib import Path

from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.networks.controlnet import ControlNetConfig
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.shown import show


def check_controlnet(
    path: Path,
    config: ControlNetConfig,
    unet: UNet2DConditionConfig,
    model: Path,
    downscale: int,
    latents: int,
) -> None:
    """Refuse a ControlNet of another family of models, or of another shape.

    Args:
        path: The ControlNet's.
        model: Path of the checkpoint with the UNet.
        downscale: Pixels to one of the latents.
        latents: Their channels. An inpainting UNet takes more, which a ControlNet does not see.

    Raises:
        UnsupportedModelError: Names the key that differs, and both values.
    """
    text = (config.context_dims[0], unet.context_dims[0])
    edits = unet.in_channels == 2 * latents  # InstructPix2Pix, which nobody draws with control
    compared = {
        "block_out_channels": (config.block_out_channels, unet.block_out_channels),
        "layers_per_block": (config.layers, unet.layers),
        "in_channels": (config.in_channels, unet.in_channels if edits else latents),
        "cross_attention_dim": text if config.reads_text else (0, 0),
        "width of the pooled text": (config.text_embeds_dim, unet.text_embeds_dim),
        "pixels to one of the latents": (config.downscale, downscale),
    }
    if config.text_embeds_dim is None and unet.text_embeds_dim is not None:
        compared["addition_embed_type"] = (None, unet.addition_embed_type)
    for key, (given, wanted) in compared.items():
        if given != wanted:
            raise UnsupportedModelError(
                f"{path}: {key} is {show(given)}, and that of the UNet of {model} is "
                f"{show(wanted)}: they are not of one family",
                allowed="a ControlNet that was trained for this family of models",
                fix="take one for this model, or the model that it was made for",
            )
