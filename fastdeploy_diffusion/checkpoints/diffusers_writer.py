"""Writes a Stable Diffusion checkpoint in the folder layout of diffusers."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from safetensors.numpy import save_file

Weights = Mapping[str, npt.NDArray[Any]]

_STEMS = {
    "text_encoder": "model",
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
}
_CLASSES = {
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_diffusers_folder(
    folder: Path,
    configs: Mapping[str, Mapping[str, Any]],
    weights: Iterable[tuple[str, Weights]],
    tokenizer: Path,
) -> None:
    """Write a checkpoint of Stable Diffusion 1.x or 2.x.

    What is there is replaced; ``model_index.json`` comes last, so that a folder which has it is
    whole.

    Args:
        folder: Made if missing.
        configs: Of ``text_encoder``, ``unet``, ``vae`` and ``scheduler``.
        weights: Each component's tensors, in PyTorch's layout, under the names of diffusers; one
            component in memory at a time, if it is a generator.
        tokenizer: A folder to copy the tokenizer from; its length becomes the text encoder's.
    """
    index = folder / "model_index.json"
    index.unlink(missing_ok=True)
    for name, tensors in weights:
        _write_json(folder / name / "config.json", configs[name])
        file = folder / name / f"{_STEMS[name]}.safetensors"
        save_file(dict(tensors), file, metadata={"format": "pt"})
    _write_json(folder / "scheduler" / "scheduler_config.json", configs["scheduler"])
    _copy_tokenizer(tokenizer, folder / "tokenizer", configs["text_encoder"])
    scheduler = {"scheduler": ["diffusers", configs["scheduler"]["_class_name"]]}
    absent = {name: [None, None] for name in ("feature_extractor", "safety_checker")}
    _write_json(
        index, {"_class_name": "StableDiffusionPipeline", **absent, **scheduler, **_CLASSES}
    )


def _copy_tokenizer(source: Path, folder: Path, text_encoder: Mapping[str, Any]) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    length = text_encoder["max_position_embeddings"]
    _write_json(path, {**config, "model_max_length": length})


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
