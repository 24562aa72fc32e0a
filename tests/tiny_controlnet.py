"""ControlNets with random weights for the tiny checkpoints; no torch."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from drawn_parameters import draw_values
from safetensors.numpy import save_file
from tokenizer_folders import write_json

from fastdeploy_diffusion.checkpoints import build_skeleton, list_shapes
from fastdeploy_diffusion.families.networks.controlnet import ControlNetConfig
from fastdeploy_diffusion.json_object import read_json_object
from fastdeploy_diffusion.models.controlnet import ControlNetModel


def configure_controlnet(unet: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The config of a ControlNet for a UNet; ``changes`` replace keys."""
    known = {*(field.name for field in fields(ControlNetConfig)), *ControlNetConfig.only}
    shared = {key: value for key, value in unet.items() if key in known}
    embedding = {"conditioning_embedding_out_channels": [6, 12]}
    return {"_class_name": "ControlNetModel", **shared, **embedding, **changes}


def draw_controlnet(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights of a config, by diffusers' names; the zero convolutions' as well."""
    random = np.random.default_rng(seed)
    layer = build_skeleton(lambda: ControlNetModel(ControlNetConfig.from_dict(config)))
    shapes = list_shapes(layer)
    return {name: draw_values(random, name, shape) for name, shape in shapes.items()}


def write_tiny_controlnet(folder: Path, model: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Write a diffusers folder of a ControlNet for the UNet of another folder."""
    config = configure_controlnet(read_json_object(model / "unet" / "config.json"), **changes)
    folder.mkdir(parents=True)
    write_json(folder, {"config.json": config})
    file = folder / "diffusion_pytorch_model.safetensors"
    save_file(draw_controlnet(config, seed), file, metadata={"format": "pt"})
    return folder
