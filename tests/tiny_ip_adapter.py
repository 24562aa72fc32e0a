"""IP-Adapters and their vision towers with random weights for the tiny checkpoints; no torch."""

from pathlib import Path
from typing import Any

import numpy as np
from drawn_parameters import draw_values
from safetensors.numpy import save_file
from tokenizer_folders import write_json

from fastdeploy_diffusion.checkpoints import build_skeleton, list_shapes
from fastdeploy_diffusion.families.networks.clip import CLIPVisionConfig
from fastdeploy_diffusion.families.networks.ip_adapter import IPAdapterConfig, Resampler
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.json_object import read_json_object
from fastdeploy_diffusion.models.clip_vision import CLIPVisionModelWithProjection
from fastdeploy_diffusion.models.ip_adapter import IPAdapter

TOWER = {
    "architectures": ["CLIPVisionModelWithProjection"],
    "model_type": "clip_vision_model",
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "projection_dim": 12,
    "hidden_act": "gelu",
    "image_size": 32,
    "patch_size": 8,
}


def write_tiny_image_encoder(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Write the folder of a vision tower as transformers does; ``changes`` replace keys."""
    config = {**TOWER, **changes}
    random = np.random.default_rng(seed)
    tower = CLIPVisionConfig.from_dict(config)
    shapes = list_shapes(build_skeleton(lambda: CLIPVisionModelWithProjection(tower)))
    weights = {
        name if name.startswith("visual") else f"vision_model.{name}": draw_values(
            random, name, shape
        )
        for name, shape in shapes.items()
    }
    # As transformers wrote until 4.31.
    weights["vision_model.embeddings.position_ids"] = np.arange(tower.tokens)[None]
    folder.mkdir(parents=True)
    write_json(folder, {"config.json": config})
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def configure_ip_adapter(unet: UNet2DConditionConfig, kind: str, **changes: Any) -> IPAdapterConfig:
    """The sizes of an adapter of a kind for a UNet and the tower above; ``changes`` replace some.

    diffusers knows resamplers of four layers alone.
    """
    widths = tuple(width for _, width in unet.list_cross_attentions())
    if kind == "base":
        sizes = {"embed_dim": TOWER["projection_dim"], "tokens": 4, "resampler": None}
    else:
        resampler = Resampler(hidden_dim=20, inner_dim=128, ff_dim=80, layers=4)
        sizes = {"embed_dim": TOWER["hidden_size"], "tokens": 5, "resampler": resampler}
    known = {"cross_attention_dim": unet.context_dims[0], "widths": widths}
    return IPAdapterConfig(**{**sizes, **known, **changes})


def draw_ip_adapter(config: IPAdapterConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights of an adapter, by the published names."""
    random = np.random.default_rng(seed)
    shapes = list_shapes(build_skeleton(lambda: IPAdapter(config)))
    return {name: draw_values(random, name, shape) for name, shape in shapes.items()}


def write_tiny_ip_adapter(path: Path, model: Path, kind: str, *, seed: int = 0) -> Path:
    """Write the file of an adapter of a kind, ``base`` or ``plus``, for the UNet of a folder."""
    raw = read_json_object(model / "unet" / "config.json")
    config = configure_ip_adapter(UNet2DConditionConfig.from_dict(raw), kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(draw_ip_adapter(config, seed), path, metadata={"format": "pt"})
    return path
