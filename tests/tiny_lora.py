"""LoRAs with random numbers for a Stable Diffusion checkpoint, as kohya's scripts write them."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from fastdeploy_diffusion.checkpoints import open_checkpoint

_LAYERS = {
    "unet": ("lora_unet_", ("to_q", "to_k", "to_v", "to_out.0", "ff.net.2", "proj_in")),
    "text_encoder": ("lora_te_text_model_", ("q_proj", "v_proj", "fc1")),
}


def write_tiny_lora(
    path: Path, model: Path, *, seed: int = 0, components: tuple[str, ...] = ("unet",)
) -> Path:
    """Write a LoRA that changes a picture much.

    Args:
        path: Of the file; its folder is made.
        model: The checkpoint.
    """
    checkpoint, random = open_checkpoint(model), np.random.default_rng(seed)
    tensors = {}
    for component in components:
        source, (prefix, layers) = checkpoint.tensors(component), _LAYERS[component]
        for weight in source:
            layer = weight.removesuffix(".weight")
            if weight.endswith(tuple(f".{each}.weight" for each in layers)):
                out, into, *kernel = source.shape(weight)
                name = prefix + layer.replace(".", "_")
                up, down = (
                    random.standard_normal(shape).astype(np.float32) / 4
                    for shape in ((out, 4, *kernel), (4, into, *kernel))
                )
                tensors[f"{name}.lora_up.weight"] = up
                tensors[f"{name}.lora_down.weight"] = down
                tensors[f"{name}.alpha"] = np.array(6, np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"ss_base_model_version": "sd_v1"})
    return path
