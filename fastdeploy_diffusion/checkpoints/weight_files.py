"""Opening files of weights, and finding those of one component: plain, variant, or in shards."""

import re
from pathlib import Path

from fastdeploy_diffusion.checkpoints.gguf_file import GGUFFile
from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.torch_file import TorchFile
from fastdeploy_diffusion.checkpoints.weight_file import WeightFile
from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.json_object import read_json_object
from fastdeploy_diffusion.model_files import find_file, find_folder
from fastdeploy_diffusion.shown import show

SAFETENSORS = ".safetensors"
TORCH_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
"""Of files of ``torch.save``, the formats that hold weights; see `TorchFile`."""
GGUF = ".gguf"
WEIGHT_SUFFIXES = (SAFETENSORS, *TORCH_SUFFIXES, GGUF)
_TORCH_STEMS = {"model": "pytorch_model"}  # as transformers named them before
# Other pickles, which are programs.
_PICKLES = (".pdparams", ".pkl")


def open_weight_file(path: Path, allowed: str, kind: str) -> WeightFile:
    """Open one file of weights, in the format that its suffix says.

    Args:
        allowed: What may be given in its place, for messages.
        kind: What it should be, as "a checkpoint".

    Raises:
        CheckpointError: It is missing, damaged, or of another format.
    """
    suffix = path.suffix.lower()
    if suffix in TORCH_SUFFIXES:
        return TorchFile(path)
    if suffix == SAFETENSORS:
        return SafetensorsFile(path)
    if suffix == GGUF:
        return GGUFFile(path)
    if suffix in _PICKLES:
        raise CheckpointError(
            f"{path} is refused; such files are pickles, and reading one can execute code hidden "
            "in it",
            allowed=allowed,
            fix="save the weights as .safetensors",
        )
    raise CheckpointError(f"{path} is not {kind}", allowed=allowed)


def open_weight_files(folder: Path, stem: str, variant: str | None, root: Path) -> list[WeightFile]:
    """Open the files that hold one component: .safetensors, or else those of torch.save.

    Args:
        stem: File name without suffix: ``model`` or ``diffusion_pytorch_model``.
        variant: ``fp16`` for ``<stem>.fp16.safetensors``; None for ``<stem>.safetensors``.
        root: The checkpoint's folder; shards must lie in it.

    Raises:
        CheckpointError: Nothing usable is there, or a file is damaged, missing or outside ``root``.
    """
    infix = "" if variant is None else f".{variant}"
    single = folder / f"{stem}{infix}{SAFETENSORS}"
    for each, ending in ((stem, SAFETENSORS), (_TORCH_STEMS.get(stem, stem), ".bin")):
        file = folder / f"{each}{infix}{ending}"
        index = folder / f"{each}{ending}.index{infix}.json"
        has_file, has_index = find_file(file), find_file(index)
        if has_file and has_index:
            raise CheckpointError(
                f"{folder} holds the weights twice: {file.name} and {index.name} with its shards",
                fix="remove one of the two",
            )
        if has_index:
            return _open_shards(index, root, ending)
        if has_file:
            return [open_weight_file(file, single.name, "weights")]
    raise _explain_missing_weights(folder, stem, single)


def _open_shards(index: Path, root: Path, suffix: str) -> list[WeightFile]:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"{index} has no weight_map", allowed="an object: tensor name → shard file name"
        )
    names_by_shard: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        # An index is untrusted text: only plain names of neighbouring files are followed.
        if not isinstance(shard, str) or not re.fullmatch(rf"[\w.-]+\{suffix}", shard):
            raise CheckpointError(
                f"{index}: {show(name)} lies in {show(shard)}",
                allowed=f"the plain name of a {suffix} file beside the index",
            )
        names_by_shard.setdefault(shard, set()).add(name)
    return [
        _open_shard(index, shard, names, root) for shard, names in sorted(names_by_shard.items())
    ]


def _open_shard(index: Path, shard: str, names: set[str], root: Path) -> WeightFile:
    path = index.parent / shard
    if not find_file(path):
        raise CheckpointError(
            f"{path} is missing; {index.name} lists it", fix="download the missing shard"
        )
    if not _lies_within(path.resolve(), root):
        raise CheckpointError(
            f"{path} is a link to {path.resolve()}, outside the checkpoint {root}",
            fix="copy the shard into the folder",
        )
    file = open_weight_file(path, f"shards of {index.name}", "a shard")
    if lacking := sorted(names - file.tensors.keys()):
        raise CheckpointError(
            f"{path} lacks {len(lacking)} tensors that {index.name} says it holds, "
            f"first {lacking[0]!r}",
            fix="index and shards are of different downloads: download all of them again",
        )
    if unlisted := sorted(file.tensors.keys() - names):
        raise CheckpointError(
            f"{path} holds {len(unlisted)} tensors that {index.name} places elsewhere or not at "
            f"all, first {unlisted[0]!r}",
            fix="index and shards are of different downloads: download all of them again",
        )
    return file


def _lies_within(path: Path, root: Path) -> bool:
    # The Hugging Face cache keeps snapshots/<revision>/… as links into blobs/ of the repository.
    cache_blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else root
    return path.is_relative_to(root) or path.is_relative_to(cache_blobs)


def _explain_missing_weights(folder: Path, stem: str, wanted: Path) -> CheckpointError:
    if not find_folder(folder):
        return CheckpointError(
            f"the component folder {folder} is missing",
            fix="download or export the whole checkpoint folder again",
        )
    found = sorted(path.name for path in folder.iterdir())
    # A shard's name also begins like a variant's: `<stem>.fp16-00001-of-00002.safetensors`.
    pattern = re.compile(
        rf"{stem}(?:\.(?P<single>[\w-]+))?(?<!-\d{{5}}-of-\d{{5}})\.safetensors"
        rf"|{stem}\.safetensors\.index(?:\.(?P<shards>[\w-]+))?\.json"
    )
    matches = filter(None, map(pattern.fullmatch, found))
    variants = sorted({match["single"] or match["shards"] or "" for match in matches})
    if variants:
        choices = ", ".join(f'variant="{name}"' if name else "variant=None" for name in variants)
        return CheckpointError(
            f"{wanted} is missing, but the folder has other variants of these weights",
            allowed=choices,
            fix=f"open the checkpoint with {choices.split(', ')[0]}",
        )
    return CheckpointError(
        f"{wanted} is missing; the folder holds {', '.join(found) or 'nothing'}",
        fix="download or export the weights of this component",
    )
