"""Full-size checkpoints with seeded random weights, for those who have no published one."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import resources
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from fastdeploy_diffusion.benchmark.architectures import ARCHITECTURES, Architecture
from fastdeploy_diffusion.benchmark.needs import check_disk, check_memory, fits_memory
from fastdeploy_diffusion.checkpoints.diffusers_writer import (
    ComponentWeights,
    copy_clip_tokenizer,
    write_diffusers_folder,
)
from fastdeploy_diffusion.checkpoints.safetensors_writer import count_bytes
from fastdeploy_diffusion.errors import ConfigError, ResourceError
from fastdeploy_diffusion.runtime.cache import default_cache_folder
from fastdeploy_diffusion.suggest import did_you_mean

SEED = 0
_TYPES = {"F16": "float16", "BF16": "bfloat16"}
_SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")
_SPACE = "▁"


def describe_weights(name: str) -> str:
    """Describe the random weights of an architecture, for a report."""
    stored = _TYPES[ARCHITECTURES[name].dtype]
    return f"seed {SEED}, {stored}, biases 0.02, matrices 1 / sqrt(inputs)"


def make_random_checkpoint(name: str) -> Path:
    """Write a diffusers folder of a published architecture, if it is not there yet.

    Args:
        name: One of ``ARCHITECTURES``.

    Returns:
        The folder, beside the cache of builds.

    Raises:
        ConfigError: There is no such architecture.
        ResourceError: There is too little memory to draw with it, or disk space to write it.
    """
    option = f"--random-weights {name}"
    if name not in ARCHITECTURES:
        raise ConfigError(
            option, allowed=", ".join(ARCHITECTURES), fix=did_you_mean(name, ARCHITECTURES)
        )
    architecture = ARCHITECTURES[name]
    root = default_cache_folder()
    folder = root.with_name(f"{root.name}-random-weights") / f"{name}-seed{SEED}"
    if not (folder / "model_index.json").exists():
        parameters = architecture.parameters
        check_memory(option, parameters, _suggest_what_fits())
        check_disk(option, count_bytes(architecture.dtype) * parameters, folder)
        try:
            write_random_checkpoint(folder, architecture)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)  # what is not whole only takes space
            if isinstance(error, OSError):
                raise ResourceError(f"{folder} cannot be written: {error.strerror}") from error
            raise
    return folder


def write_random_checkpoint(folder: Path, architecture: Architecture) -> None:
    """Write a diffusers folder, a tensor at a time.

    CLIP's tokenizers are that of the model `shapes` at CLIP's length, and T5's is one of single
    characters: the published ones cannot be shipped.
    """
    presets = Path(str(resources.files("fastdeploy_diffusion.configs")))
    first = next(iter(architecture.family.networks))  # a text encoder
    length = architecture.configs[first]["max_position_embeddings"]
    copy = partial(copy_clip_tokenizer, presets / "shapes/tokenizer", length=length)
    tokenizers: dict[str, Callable[[Path], None]] = {
        name: write_character_tokenizer
        if each.name.startswith("T5")
        else partial(copy, pad_token=each.pad_token)
        for name, each in architecture.family.tokenizers.items()
    }
    write_diffusers_folder(
        folder,
        architecture.family,
        architecture.configs,
        draw_weights(architecture),
        tokenizers,
        architecture.dtype,
    )


def draw_weights(architecture: Architecture) -> Iterator[ComponentWeights]:
    """Draw each component's weights so that nothing vanishes or overflows on the way."""
    random = np.random.default_rng(SEED)
    for name, shapes in architecture.sketch().items():
        yield ComponentWeights(name, shapes, partial(_draw, random, shapes))


def _draw(
    random: np.random.Generator, shapes: Mapping[str, tuple[int, ...]], name: str
) -> npt.NDArray[np.float32]:
    shape = shapes[name]
    values = random.standard_normal(shape, np.float32)
    if len(shape) > 1:
        values /= np.float32(np.sqrt(prod(shape[1:])))
    else:  # those of norms are near 1, and biases near 0
        values *= np.float32(0.02)
        values += np.float32(name.endswith("weight"))
    return values


def _suggest_what_fits() -> str:
    fitting = [name for name, each in ARCHITECTURES.items() if fits_memory(each.parameters)]
    return f"take one that fits: {', '.join(fitting)}" if fitting else "free memory first"


def write_character_tokenizer(folder: Path) -> None:
    """Write ``tokenizer.json`` as T5's is laid out, with ASCII's printable characters as pieces.

    Args:
        folder: Made if missing.
    """
    characters = [_SPACE, *map(chr, range(ord("!"), ord("~") + 1))]
    vocabulary = [
        *((each, 0.0) for each in _SPECIAL_TOKENS),
        *((each, -1.0) for each in characters),
    ]
    tokenizer = Tokenizer(
        models.Unigram(vocabulary, _SPECIAL_TOKENS.index("<unk>"), byte_fallback=False)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", _SPECIAL_TOKENS.index("</s>"))]
    )
    tokenizer.add_special_tokens([AddedToken(each, normalized=False) for each in _SPECIAL_TOKENS])
    config = {
        "tokenizer_class": "T5TokenizerFast",
        "model_max_length": 512,
        "extra_ids": 0,
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
