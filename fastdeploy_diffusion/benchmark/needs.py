"""Checks whether a model fits into memory and on the disk, before anything is done."""

import shutil
from math import prod
from pathlib import Path

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.errors import ResourceError
from fastdeploy_diffusion.machine import describe_machine

_FLOAT32 = 4  # bytes


def check_model(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint of which not even the reference picture can be drawn.

    Raises:
        ResourceError: There is too little memory.
    """
    networks = map(checkpoint.tensors, checkpoint.family.networks)
    parameters = sum(prod(each.shape(name)) for each in networks for name in each)
    check_memory(str(checkpoint.path), parameters, "measure where there is as much, or another")


def fits_memory(parameters: int) -> bool:
    """Tell whether networks of so many parameters fit, in float32; True if that is unknown."""
    memory = describe_machine()["memory"]
    return memory is None or _FLOAT32 * parameters <= memory["available"]


def check_memory(model: str, parameters: int, fix: str) -> None:
    """Refuse a model of which not even the reference picture can be drawn.

    The reference has all networks in memory in float32. What engines need depends on the engine,
    and mostly is more: this is the least.

    Raises:
        ResourceError: There is too little memory.
    """
    if not fits_memory(parameters):
        memory = describe_machine()["memory"]
        raise ResourceError(
            f"{model} has {parameters / 1e9:.1f} billion parameters: the reference picture, with "
            f"which every other is compared, takes at least {_format(_FLOAT32 * parameters)} of "
            f"memory, and {_format(memory['available'])} of {_format(memory['total'])} are "
            "available",
            allowed="models whose networks in float32 fit into the memory, all of them together",
            fix=fix,
        )


def check_disk(model: str, size: int, folder: Path) -> None:
    """Refuse to write what does not fit.

    Args:
        size: In bytes.
        folder: Where it is to lie; it need not be there yet.

    Raises:
        ResourceError: There is too little space.
    """
    free = find_free_space(folder)
    if size > free:
        raise ResourceError(
            f"{model} takes {_format(size)} of disk space, and {_format(free)} are free for "
            f"{folder}",
            fix="make room, or set XDG_CACHE_HOME to a folder with more of it",
        )


def find_free_space(folder: Path) -> int:
    """Bytes that can be written to a folder, which need not be there yet."""
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(existing).free


def _format(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
