"""Writes a checkpoint in the folder layout of diffusers."""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fastdeploy_diffusion.checkpoints.safetensors_writer import FloatArray, write_safetensors
from fastdeploy_diffusion.families.family import Family
from fastdeploy_diffusion.families.networks.network_kind import NetworkKind


class ComponentWeights(NamedTuple):
    """A component's tensors under the names of diffusers, in PyTorch's layout.

    Args:
        shapes: By the tensor's name.
        read: Returns a tensor by its name; called once for each, in the order of ``shapes``.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], FloatArray]


def write_diffusers_folder(
    folder: Path,
    family: Family,
    configs: Mapping[str, Mapping[str, Any]],
    weights: Iterable[ComponentWeights],
    tokenizers: Mapping[str, Callable[[Path], None]],
    dtype: str,
) -> None:
    """Write a checkpoint of any family, tensor by tensor.

    CLIP's text encoders get the names that every version of transformers reads. Existing files are
    replaced; ``model_index.json`` comes last, so that a folder which has it is whole.

    Args:
        configs: Of each component with weights, and of ``scheduler``.
        tokenizers: Writers of the tokenizers' folders, by name.
        dtype: How weights are stored: ``F32``, ``F16`` or ``BF16``.
    """
    index = folder / "model_index.json"
    index.unlink(missing_ok=True)
    for name, shapes, read in weights:
        _write_json(folder / name / "config.json", configs[name])
        kind = family.networks[name]
        names = {_publish(each, kind): each for each in shapes}
        write_safetensors(
            folder / name / f"{kind.stem}.safetensors",
            {published: shapes[each] for published, each in names.items()},
            dtype,
            partial(_read, read, names),
        )
    _write_json(folder / "scheduler" / "scheduler_config.json", configs["scheduler"])
    for name, write in tokenizers.items():
        write(folder / name)
    _write_json(
        index,
        {
            "_class_name": family.index_class,
            **family.options,
            **{name: [None, None] for name in family.absent},
            "scheduler": ["diffusers", configs["scheduler"]["_class_name"]],
            **{name: ["transformers", family.tokenizers[name].name] for name in tokenizers},
            **{name: [kind.library, kind.name] for name, kind in family.networks.items()},
        },
    )


def copy_clip_tokenizer(
    source: Path, folder: Path, length: int, pad_token: str | None = None
) -> None:
    """Copy a tokenizer's folder.

    Args:
        length: New number of tokens.
        pad_token: New padding token; ``None`` keeps the old one.
    """
    shutil.copytree(source, folder, dirs_exist_ok=True)
    padding = {} if pad_token is None else {"pad_token": pad_token}
    _update_json(folder / "tokenizer_config.json", {"model_max_length": length, **padding})
    _update_json(folder / "special_tokens_map.json", padding)


def _publish(tensor: str, kind: NetworkKind) -> str:
    """Translate a tensor's name to that of published checkpoints, which other programs read."""
    return tensor if tensor.startswith("text_projection.") else f"{kind.tower}{tensor}"


def _read(read: Callable[[str], FloatArray], names: Mapping[str, str], name: str) -> FloatArray:
    return read(names[name])


def _update_json(path: Path, changes: Mapping[str, Any]) -> None:
    _write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **changes})


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
