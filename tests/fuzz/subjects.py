"""Small models of every family and layout, of which mutants are made."""

import json
import shutil
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path

from checkpoint_writers import write_sparse
from ldm_reference import single_file
from t5_tokenizer_folders import write_sentencepiece
from tiny_checkpoint import write_tiny_sd
from tiny_flux import shrink
from tiny_sdxl import shrink_sdxl
from tokenizer_folders import config_files, train_vocabulary, write_json, write_tokenizer_json

from fastdeploy_diffusion.benchmark.random_checkpoint import write_random_checkpoint
from fastdeploy_diffusion.families.published.flux import FLUX_DEV, FLUX_SCHNELL

_PRESETS = Path(str(resources.files("fastdeploy_diffusion.configs")))
_T5 = {"text_encoder_2": {"vocab_size": 500}}


def _write_sd_in_new_files(folder: Path) -> None:
    """As newer downloads are: tokenizer.json, added tokens, weights in shards."""
    write_tiny_sd(folder, family="sd2")
    vocabulary, _ = train_vocabulary()
    for file in (folder / "tokenizer").iterdir():
        file.unlink()
    write_json(folder / "tokenizer", config_files("sdxl2", vocabulary))
    write_tokenizer_json(folder / "tokenizer")
    stem = "diffusion_pytorch_model.safetensors"
    shard = "diffusion_pytorch_model-00001-of-00001.safetensors"
    content = (folder / "unet" / stem).rename(folder / "unet" / shard).read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    weight_map = {name: shard for name in header if name != "__metadata__"}
    index = {"metadata": {"total_size": len(content)}, "weight_map": weight_map}
    write_json(folder / "unet", {f"{stem}.index.json": index})


def _write_flux_with_sentencepiece(folder: Path) -> None:
    write_random_checkpoint(folder, shrink(FLUX_DEV, **_T5))
    shutil.rmtree(folder / "tokenizer_2")
    write_sentencepiece(folder / "tokenizer_2", with_characters=True)


def _write_single_file(folder: Path) -> None:
    """All names, and the widths by which a family is told; one row of each tensor."""
    folder.mkdir()
    told = ("input_blocks.0.0.weight", "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight")
    shapes = {
        name: (1, *shape[1:]) if name.endswith(told) else (1,) * len(shape)
        for name, shape in single_file("sd1").items()
    }
    write_sparse(folder / "model.safetensors", shapes)


def _write_yaml(folder: Path) -> None:
    folder.mkdir()
    for file in _PRESETS.glob("*.yaml"):
        shutil.copy(file, folder)


SUBJECTS: Mapping[str, Callable[[Path], object]] = {
    "sd1": write_tiny_sd,
    "sd2": _write_sd_in_new_files,
    "sdxl": lambda folder: write_random_checkpoint(folder, shrink_sdxl()),
    "schnell": lambda folder: write_random_checkpoint(folder, shrink(FLUX_SCHNELL)),
    "dev": _write_flux_with_sentencepiece,
    "shapes": lambda folder: shutil.copytree(_PRESETS / "shapes", folder),
    "flux-shapes": lambda folder: shutil.copytree(_PRESETS / "flux-shapes", folder),
    "single file": _write_single_file,
    "yaml": _write_yaml,
}
