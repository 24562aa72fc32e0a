"""Error messages for ``.safetensors`` files that are not whole checkpoints."""

import re
from collections.abc import Sequence

from fastdeploy_diffusion.checkpoints.weight_file import WeightFile
from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.families.registry import name_families

_FOLDER_FIX = "give the folder with model_index.json that this file is part of"

# (pattern searched for in the tensor names, kind of file, what to do). The first match decides, so
# adapters come before the models.
_LOOKS_LIKE: Sequence[tuple[str, str, str]] = (
    (
        r"^lora_(unet|te)|\.lora[._](down|up|A|B)\b|\.hada_w|\.lokr_w",
        "a LoRA (changes to a model, not a model)",
        "give the checkpoint that the LoRA was trained on, and this file as one of its adapters",
    ),
    (
        r"^(emb_params|string_to_param.*|clip_[lg]|<.+>)$",
        "a textual inversion (embeddings of new words, not a model)",
        "give the checkpoint that the embedding was trained on",
    ),
    (
        r"^control_model\.|input_hint_block\.|controlnet_cond_embedding\.",
        "a ControlNet",
        "give a text-to-image checkpoint, and this file as one of its controlnets",
    ),
    (
        r"^image_proj\.|^ip_adapter\.\d",
        "an IP-Adapter",
        "give a text-to-image checkpoint, and this file as one of its ip_adapters",
    ),
    (r"(^|\.)joint_blocks\.\d", "a Stable Diffusion 3 model", f"give {name_families()}"),
    (
        r"(^|\.)double_blocks\.\d|^(single_)?transformer_blocks\.\d",
        "the transformer of Flux, without text encoders and VAE",
        "give a diffusers folder of Flux; this file may stand in it as "
        "transformer/diffusion_pytorch_model.safetensors, with the config.json of its model",
    ),
    (
        r"^conditioner\.embedders\.0\.model\.",
        "an SDXL refiner that lacks UNet or VAE",
        "give the whole file, or a diffusers folder",
    ),
    (
        r"^model\.diffusion_model\.",
        "a Stable Diffusion UNet that lacks text encoder or VAE, or is of another family",
        "give a file with all components",
    ),
    (r"^(first_stage_model\.)?(encoder|decoder)\.(conv_in|mid)", "a VAE alone", _FOLDER_FIX),
    (r"^down_blocks\.\d", "the UNet of a diffusers folder", _FOLDER_FIX),
    (r"(^|\.)embeddings\.token_embedding\.", "a CLIP text encoder alone", _FOLDER_FIX),
    (r"(^|\.)SelfAttention\.relative_attention_bias\.", "a T5 text encoder alone", _FOLDER_FIX),
)


def describe_unknown_file(file: WeightFile) -> CheckpointError:
    """Make the error for a file that is not a known single-file checkpoint."""
    allowed = f"one file with all components of {name_families()}"
    for pattern, description, fix in _LOOKS_LIKE:
        if any(re.search(pattern, name) for name in file.tensors):
            return CheckpointError(
                f"{file.path} looks like {description}", allowed=allowed, fix=fix
            )
    first = ", ".join(sorted(file.tensors)[:5])
    return CheckpointError(
        f"{file.path} is no known checkpoint; its {len(file.tensors)} tensors begin with {first}",
        allowed=allowed,
    )
