"""Small and sparse checkpoints, written byte by byte so that damaged ones can be written too."""

import json
from math import prod
from pathlib import Path

import numpy as np

ITEM_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "F8_E4M3": 1}


def write_raw(path: Path, header, data: bytes = b"", *, length: int | None = None) -> Path:
    """Write a safetensors file from a header (object or bytes), true or not, and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(size.to_bytes(8, "little") + text + data)
    return path


def write_tensors(path: Path, tensors: dict[str, np.ndarray], dtype: str = "F32") -> Path:
    """Write float32 values as F64, F32, F16 or BF16 (cut off, so that tests know the bits)."""
    header, chunks, offset = {}, [], 0
    for name, value in tensors.items():
        if dtype == "BF16":
            bits = np.ascontiguousarray(value, np.float32).view(np.uint32) >> 16
            raw = bits.astype("<u2").tobytes()
        else:
            raw = value.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(value.shape),
            "data_offsets": [offset, offset + len(raw)],
        }
        chunks.append(raw)
        offset += len(raw)
    return write_raw(path, header, b"".join(chunks))


def write_sparse(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str = "F16") -> Path:
    """Write a full-size file whose data is a hole: a header, and no disk space."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = prod(shape) * ITEM_SIZES[dtype]
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    write_raw(path, header)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + offset)
    return path


def write_json(path: Path, value) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_folder(root: Path, *, xl: bool = False, infix: str = "") -> Path:
    """Write a diffusers folder that is complete in its files, with one or two tensors each."""
    tokenizers = ["tokenizer", "tokenizer_2"] if xl else ["tokenizer"]
    encoders = {"text_encoder": "CLIPTextModel"}
    if xl:
        encoders["text_encoder_2"] = "CLIPTextModelWithProjection"
    write_json(
        root / "model_index.json",
        {
            "_class_name": "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline",
            "_diffusers_version": "0.42.0",
            "requires_safety_checker": True,
            "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
            "feature_extractor": ["transformers", "CLIPImageProcessor"],
            "image_encoder": [None, None],
            "scheduler": ["diffusers", "PNDMScheduler"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
            **{name: ["transformers", "CLIPTokenizer"] for name in tokenizers},
            **{name: ["transformers", cls] for name, cls in encoders.items()},
        },
    )
    write_json(root / "scheduler" / "scheduler_config.json", {"beta_start": 0.00085})
    write_json(root / "unet" / "config.json", {"cross_attention_dim": 768, "layers_per_block": 2})
    write_json(root / "vae" / "config.json", {"latent_channels": 4})
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((3, 2), np.float32)
    stem = f"diffusion_pytorch_model{infix}.safetensors"
    write_tensors(root / "unet" / stem, {"conv_in.bias": weights[0], "conv_in.weight": weights})
    write_tensors(root / "vae" / stem, {"quant_conv.weight": weights + 1})
    for name in encoders:
        write_json(root / name / "config.json", {"hidden_size": 2})
        write_tensors(
            root / name / f"model{infix}.safetensors",
            {"text_model.final_layer_norm.weight": weights[1]},
        )
    for name in tokenizers:
        (root / name).mkdir()
    return root
