"""Opens checkpoints by their paths."""

import os
import re
import stat
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from fastdeploy_diffusion.checkpoints.bundle_folder import BundleFolder
from fastdeploy_diffusion.checkpoints.checkpoint import Checkpoint
from fastdeploy_diffusion.checkpoints.diffusers_folder import DiffusersFolder
from fastdeploy_diffusion.checkpoints.parts import AssembledCheckpoint
from fastdeploy_diffusion.checkpoints.single_file import SingleFile
from fastdeploy_diffusion.checkpoints.weight_files import WEIGHT_SUFFIXES, open_weight_file
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.config.part_options import list_parts
from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.model_files import check_links, find_file, refuse_path
from fastdeploy_diffusion.runtime.bundle import is_bundle

_ALLOWED = (
    "a diffusers folder with model_index.json, or one file with all components: "
    f"{', '.join(WEIGHT_SUFFIXES)}"
)
# A model of a hub, by the rules that Hugging Face has for names.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def open_configured(config: DiffusionConfig) -> Checkpoint:
    """Open the checkpoint that a configuration names, with its parts; as `open_checkpoint`."""
    return open_checkpoint(config.model_path, variant=config.variant, parts=list_parts(config))


def open_checkpoint(
    path: str | Path,
    *,
    variant: str | None = None,
    parts: Mapping[str, str | Path] | None = None,
) -> Checkpoint:
    """Open a checkpoint of any family in `FAMILIES`.

    Headers and configs are read and checked; the weights stay on disk.

    Args:
        path: A diffusers folder, or a single file with the original names.
        variant: For folders, the infix of the weight files: ``"fp16"`` opens
            ``diffusion_pytorch_model.fp16.safetensors``. None opens the plain files.
        parts: Components from elsewhere, which a single file may lack; see `AssembledCheckpoint`.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or incomplete.
        UnsupportedModelError: A model of a kind that is not implemented.
        ConfigError: A part is given of which the checkpoint's family has none, or to a bundle.
    """
    checkpoint = _open(path, variant, parts or {})
    return AssembledCheckpoint(checkpoint, parts, variant) if parts else checkpoint


def _open(path: str | Path, variant: str | None, parts: Mapping[str, str | Path]) -> Checkpoint:
    given, path = os.fspath(path), _expand(path)
    if variant is not None and not re.fullmatch(r"[A-Za-z0-9_-]+", variant):
        raise CheckpointError(
            f"variant = {variant!r} cannot be part of a file name",
            allowed='letters, digits, "_" and "-", as in "fp16"',
        )
    mode = _look_at(path, given)
    if stat.S_ISDIR(mode):
        return _open_folder(path, variant)
    if variant is not None:
        raise CheckpointError(
            f"variant = {variant!r} has no meaning for the single file {path}",
            fix="leave variant out",
        )
    return SingleFile(open_weight_file(path, _ALLOWED, "a checkpoint"), parts)


def _expand(path: str | Path) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = Path(path).parts[0]
        raise CheckpointError(
            f"{str(path)[:200]!r} begins with {user[:200]!r}, and there is no such user",
            allowed=_ALLOWED,
            fix="write ~/ for your own home folder",
        ) from None


def _look_at(path: Path, given: str) -> int:
    """Stat a path, which may be a folder, for its mode."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        check_links(path)
        raise _explain_missing_path(path, given) from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        check_links(path)
        raise refuse_path(path, error) from None


def _open_folder(path: Path, variant: str | None) -> Checkpoint:
    if is_bundle(path):
        return BundleFolder(path)
    if find_file(path / "model_index.json"):
        return DiffusersFolder(path, variant)
    try:
        found = sorted(os.listdir(path))
    except OSError as error:
        raise refuse_path(path, error) from None
    singles = [name for name in found if name.endswith(WEIGHT_SUFFIXES)]
    problem = f"{path} has no model_index.json"
    if (path.parent / "model_index.json").exists():
        fix = f"this is one component of a checkpoint: give {path.parent}"
    elif singles:
        fix = f"give a file of it: {path / singles[0]}"
    else:
        problem += f"; it holds {', '.join(found[:20]) or 'nothing'}"
        fix = "give the folder that save_pretrained or the download made"
    raise CheckpointError(problem, allowed=_ALLOWED, fix=fix)


def _explain_missing_path(path: Path, given: str) -> CheckpointError:
    missing = path.absolute()
    while not missing.parent.exists():
        missing = missing.parent
    parent = missing.parent
    entries = _list_names(parent)
    # What is missing may be a folder on the way, of which no file is a misspelling.
    is_last = missing == path.absolute()
    candidates = [name for name in entries if is_last or (parent / name).is_dir()]
    similar = get_close_matches(missing.name, candidates, n=5, cutoff=0.5)
    shown = f"similar: {', '.join(similar)}" if similar else f"it holds {len(entries)} other names"
    problem = f"{path} does not exist: {parent} has no {missing.name!r} ({shown})"
    # Also at the end of a path: a configuration file's own folder stands before what it names.
    name = "/".join(path.absolute().parts[-2:])
    # Where the folder of an owner is, or almost, it is a path with a mistake in it.
    may_be_hub = missing == path.absolute().parent and not similar and _HUB_NAME.fullmatch(name)
    if not may_be_hub or path.suffix in WEIGHT_SUFFIXES:
        name = "OWNER/NAME"
    folder = name.split("/")[1]
    if given == name:
        problem += ". It looks like the name of a model of a hub"
        advice = "download it first:"
    else:
        advice = "correct model_path; a model of a hub must be downloaded first:"
    return CheckpointError(
        problem,
        allowed=_ALLOWED,
        fix=f"{advice} `hf download {name} --local-dir {folder}` from Hugging Face, or "
        f"`modelscope download --model {name} --local_dir {folder}` from ModelScope; then give "
        f'model_path="./{folder}", or --model ./{folder} on the command line',
    )


def _list_names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:  # a file, or without permission
        return []
