"""IP-Adapters and their vision towers with random weights for the tiny checkpoints; no torch."""

from pathlib import Path
from typing import Any

import numpy as np
from drawn_parameters import draw_values
from safetensors.numpy import save_file
from tokenizer_folders import write_json

from fastdeploy_diffusion.checkpoints import build_skeleton, list_shapes
from fastdeploy_diffusion.families.networks.clip import CLIPVisionConfig
from fastdeploy_diffusion.models.clip_vision import CLIPVisionModelWithProjection

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
