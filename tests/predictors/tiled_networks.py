"""Small autoencoders with random weights, and the builds of their halves in tiles."""

from functools import partial
from typing import Any

import numpy as np
from checkpoint_writers import write_tensors

from fastdeploy_diffusion.checkpoints import build_skeleton, list_shapes
from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource, TensorView
from fastdeploy_diffusion.compiler.reference import Reference
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.placement import Placement
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.families.networks.autoencoder import DECODER, ENCODER, AutoencoderKLConfig
from fastdeploy_diffusion.lazy import defer
from fastdeploy_diffusion.models.autoencoder import AutoencoderKL
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.runtime.program import Signature, TensorSpec

_LAYERS = "fastdeploy_diffusion.models.components"


def write_vae(folder: Any, options: dict[str, Any], *, is_encoder: bool = False) -> Network:
    """Write an autoencoder of random weights; returns its decoder, or its encoder."""
    levels = len(options["block_out_channels"])
    config = AutoencoderKLConfig.from_dict(
        {
            **options,
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
        }
    )
    random = np.random.default_rng(0)
    shapes = list_shapes(build_skeleton(partial(AutoencoderKL, config)))
    tensors = {
        name: random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        if len(shape) > 1
        else random.uniform(0.5, 1.5, shape)  # norms begin as ones, which would hide a lost one
        for name, shape in shapes.items()
    }
    file = SafetensorsFile(write_tensors(folder / "vae.safetensors", tensors, "F32"))
    source = TensorSource("vae", {name: TensorView(file, name) for name in tensors})
    return Network(
        "fastdeploy_diffusion.models.autoencoder:AutoencoderKL",
        config,
        source,
        cut=defer(f"{_LAYERS}:{'LatentEncoder' if is_encoder else 'LatentDecoder'}"),
        unread=DECODER if is_encoder else ENCODER,
    )


def plan(
    build_class: Any,
    network: Network,
    height: int,
    width: int,
    engine: str = "paddle",
    passes: tuple[Any, ...] = (),
):
    """The build of a decoder or an encoder for latents of a size."""
    config, is_encoder = network.config, network.unread == DECODER
    pixels = config.downscale * height, config.downscale * width
    images = TensorSpec("images", (None, 3, *pixels), "float32")
    name, channels = (
        ("moments", 2 * config.latent_channels)
        if is_encoder
        else ("latents", config.latent_channels)
    )
    latents = TensorSpec(name, (None, channels, height, width), "float32")
    signature = Signature(*(((images,), (latents,)) if is_encoder else ((latents,), (images,))))
    half = "vae_encoder" if is_encoder else "vae_decoder"
    return build_class(
        half,
        Placement(create_engine(engine), BuildSpec(Device("cpu"), threads=1)),
        network,
        Reference(half, network, signature),
        passes,
        {},
        *signature,
    )


def draw_inputs(build, batch, seed=1):
    """Latents or images of the build's size."""
    _, *sizes = build.inputs[0].shape
    return np.random.default_rng(seed).standard_normal((batch, *sizes), np.float32)
