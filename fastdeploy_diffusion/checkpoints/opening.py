"""The one way in: from a path to a checkpoint."""

import re
from difflib import get_close_matches
from pathlib import Path

from fastdeploy_diffusion.checkpoints.checkpoint import Checkpoint
from fastdeploy_diffusion.checkpoints.diffusers_folder import DiffusersFolder
from fastdeploy_diffusion.checkpoints.single_file import SingleFile
from fastdeploy_diffusion.checkpoints.weight_files import (
    PICKLE_REASON,
    PICKLE_SUFFIXES,
    SAFETENSORS_FIX,
)
from fastdeploy_diffusion.errors import CheckpointError

_ALLOWED = "a diffusers folder with model_index.json, or one .safetensors file"


def open_checkpoint(path: str | Path, *, variant: str | None = None) -> Checkpoint:
    """Open a checkpoint of SD 1.x, SD 2.x, SDXL or Flux.

    Headers and configs are read and checked; the weights stay on disk.

    Args:
        path: A diffusers folder, or a single ``.safetensors`` file with the original names.
        variant: For folders, the infix of the weight files: ``"fp16"`` opens
            ``diffusion_pytorch_model.fp16.safetensors``. None opens the plain files.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, unsafe (a pickle) or incomplete.
        UnsupportedModelError: A model of a kind that is not implemented.
    """
    path = Path(path).expanduser()
    if variant is not None and not re.fullmatch(r"[A-Za-z0-9_-]+", variant):
        raise CheckpointError(
            f"variant = {variant!r} cannot be part of a file name",
            allowed='letters, digits, "_" and "-", as in "fp16"',
        )
    if path.is_dir():
        return _open_folder(path, variant)
    if not path.exists():
        raise _explain_missing_path(path)
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise CheckpointError(
            f"{path} is refused; {PICKLE_REASON}", allowed=_ALLOWED, fix=SAFETENSORS_FIX
        )
    if path.suffix.lower() == ".gguf":
        raise CheckpointError(
            f"{path} is a GGUF file: quantized weights of one network, for other programs",
            allowed=_ALLOWED,
            fix="give the checkpoint that it was made from",
        )
    if path.suffix.lower() != ".safetensors":
        raise CheckpointError(f"{path} is not a checkpoint", allowed=_ALLOWED)
    if variant is not None:
        raise CheckpointError(
            f"variant = {variant!r} has no meaning for the single file {path}",
            fix="leave variant out",
        )
    return SingleFile(path)


def _open_folder(path: Path, variant: str | None) -> Checkpoint:
    if (path / "model_index.json").exists():
        return DiffusersFolder(path, variant)
    found = sorted(entry.name for entry in path.iterdir())
    singles = [name for name in found if name.endswith(".safetensors")]
    pickles = [name for name in found if name.endswith(PICKLE_SUFFIXES)]
    problem = f"{path} has no model_index.json"
    if (path.parent / "model_index.json").exists():
        fix = f"this is one component of a checkpoint: give {path.parent}"
    elif singles:
        fix = f"give a file of it: {path / singles[0]}"
    elif pickles:
        problem += f" and holds its weights as {', '.join(pickles)}; {PICKLE_REASON}"
        fix = SAFETENSORS_FIX
    else:
        problem += f"; it holds {', '.join(found[:20]) or 'nothing'}"
        fix = "give the folder that save_pretrained or the download made"
    raise CheckpointError(problem, allowed=_ALLOWED, fix=fix)


def _explain_missing_path(path: Path) -> CheckpointError:
    missing = path.absolute()
    while not missing.parent.exists():
        missing = missing.parent
    parent = missing.parent
    entries = sorted(entry.name for entry in parent.iterdir()) if parent.is_dir() else []
    similar = get_close_matches(missing.name, entries, n=5, cutoff=0.5)
    shown = f"similar: {', '.join(similar)}" if similar else f"it holds {len(entries)} other names"
    return CheckpointError(
        f"{path} does not exist: {parent} has no {missing.name!r} ({shown})",
        allowed=_ALLOWED,
        fix="correct model_path; models of the Hugging Face Hub must be downloaded first, "
        "for example with `hf download <name> --local-dir <folder>`",
    )
