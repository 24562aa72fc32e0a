"""The store of converted and derived weights on disk: each once, for all builds.

A weight lies in a file that is named by the digest of its origin: the tensors' own digests,
the operations, and the type. So builds of other sizes and precisions, and other engines, find it.
Beside the weights, each build has a list of those that it was bound with; weights that no list of a
kept build names are removed.

Files appear by one rename, and are mapped: a removed one stays readable where it is mapped, and a
missing one is made again. Binding weights shares the store's lock, and removing some takes it
exclusively, so that no weight is removed before a list names it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fastdeploy_diffusion.disk_room import explain_full_disk
from fastdeploy_diffusion.errors import DiskFullError
from fastdeploy_diffusion.mapped_file import lies_in_file, map_array
from fastdeploy_diffusion.runtime.checked_files import CheckedFiles
from fastdeploy_diffusion.runtime.recipe import (
    Array,
    Tensors,
    Weight,
    derive,
    describe,
    digest_code,
    is_moved,
    list_names,
    replace_names,
)
from fastdeploy_diffusion.whole_file import UNFINISHED, write_whole

_LISTS = "builds"
_CHECKED = "checked"
_SUFFIX = ".npy"
# Weights smaller than a page of memory are made at each start.
_SMALLEST = 1 << 12
_BLOCK = 1 << 22


@dataclass(frozen=True)
class BoundWeights:
    """Weights as engines bind them.

    Args:
        arrays: By name, to be read only.
        unkept: Bytes that were made, and not kept for the next start.
        shortage: Why not, and in which folder.
    """

    arrays: Mapping[str, Array]
    unkept: int = 0
    shortage: str = ""


class DigestedTensors(Tensors, Protocol):
    """Stored tensors with digests of their values."""

    def digest_tensor(self, name: str) -> str:
        """Hash type, shape and values; the sha256 as hexadecimal digits."""

    def is_lasting(self, name: str) -> bool:
        """Tell whether what is made of one is worth keeping for other starts."""


class WeightStore:
    """The weights of one build in a folder that many builds share.

    Args:
        root: The folder; made when the first weight is kept.
        build: Digest of the build that they are bound for.
        share: Locks the folder, shared.
    """

    def __init__(
        self, root: Path, build: str, share: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self._root = root
        self._build = build
        self._share = share
        self._checked = CheckedFiles(root / _CHECKED)

    def bind(
        self, weights: Mapping[str, Weight], tensors: DigestedTensors, *, is_mapped: bool = False
    ) -> BoundWeights:
        """Bind weights: from the checkpoint, if it has them in layout and type, or from the store.

        Missing ones are made, and kept if there is room; those of adapters are never kept.

        Args:
            is_mapped: Whether all large ones are to lie in files; otherwise those that are only
                moved are made of the checkpoint at each start.

        Raises:
            CheckpointError: A tensor cannot be read.
            EngineError: An operation is not registered.
        """
        keys = {
            name: digest_weight(weight, tensors)
            for name, weight in weights.items()
            if (is_mapped or not is_moved(weight.made_of))
            and all(map(tensors.is_lasting, list_names(weight.made_of)))
        }
        arrays: dict[str, Array] = {}
        additions = _Additions(self._root)
        with self._share():
            kept = self._list_whole(keys.values())
            for name, weight in weights.items():
                key = keys.get(name)
                if key not in kept:
                    arrays[name] = made = derive(weight, tensors)
                    if key is None or made.nbytes < _SMALLEST or lies_in_file(made):
                        continue  # it is made at each start, or lies in the checkpoint's file
                    if (path := additions.add(key, made)) is None:
                        continue
                    kept[key] = path
                arrays[name] = _map(kept[key], weight.dtype)
            if additions.shortage:
                additions.withdraw()
            else:
                self._write_list(sorted(kept))
            self._checked.note(kept.values())
        return BoundWeights(arrays, additions.size, additions.shortage)

    def _list_whole(self, keys: Iterable[str]) -> dict[str, Path]:
        """List the files of weights that are in the store; damaged ones are removed."""
        wanted = set(keys)
        files = {_read_key(path): path for path in _list_files(self._root)}
        whole = {key: path for key, path in files.items() if key in wanted}
        unknown = self._checked.list_unknown(whole.values())
        with ThreadPoolExecutor() as pool:  # zlib releases Python's lock
            damages = list(pool.map(find_damage, unknown))
        for path, damage in zip(unknown, damages, strict=True):
            if damage:
                del whole[_read_key(path)]
                with suppress(OSError):  # a read-only store serves, too
                    path.unlink()
        return whole

    def _write_list(self, keys: list[str]) -> None:
        text = json.dumps(keys)
        path = self._root / _LISTS / f"{self._build}.{hashlib.sha256(text.encode()).hexdigest()}"
        with suppress(OSError):
            if keys and _read_list(path) != keys:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, text.encode())


class _Additions:
    """Additions to a store, until there is no room.

    Attributes:
        size: Bytes that there was no room for, or that were withdrawn.
        shortage: Why nothing more is added, and to which folder; empty while there is room.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._written: list[Path] = []
        self.size = 0
        self.shortage = ""

    def add(self, key: str, array: Array) -> Path | None:
        """Write a weight; returns its file, if there was room."""
        try:
            if not self.shortage:
                self._written.append(self._write(key, array))
                return self._written[-1]
        except DiskFullError as error:
            self.shortage = f"{error.shortage} in {error.folder}"
        except OSError as error:
            self.shortage = f"{error.strerror or error} in {self._root}"
        self.size += array.nbytes
        return None

    def withdraw(self) -> None:
        """Remove what was written, for the rest has no room beside it; mappings stay valid."""
        for path in self._written:
            with suppress(OSError):
                self.size += path.stat().st_size
                path.unlink()

    def _write(self, key: str, array: Array) -> Path:
        bits = array.view(np.uint16) if array.dtype.name == "bfloat16" else array
        self._root.mkdir(parents=True, exist_ok=True)
        unfinished = self._root / f"{key}.{secrets.token_hex(4)}{UNFINISHED}"
        try:
            # NumPy tells how much of an array it could not write, and not why.
            with explain_full_disk("weights", self._root), unfinished.open("wb") as file:
                np.save(file, bits, allow_pickle=False)
            return unfinished.replace(self._root / f"{key}.{_sum_up(unfinished):08x}{_SUFFIX}")
        except BaseException:
            with suppress(OSError):
                unfinished.unlink()
            raise


def measure_weights(root: Path, build: str = "") -> dict[str, int]:
    """Measure each weight of a store, in bytes, or those that a build was bound with."""
    sizes = {}
    for path in _list_files(root):
        with suppress(OSError):
            sizes[_read_key(path)] = path.stat().st_size
    if not build:
        return sizes
    keys = {key for path in (root / _LISTS).glob(f"{build}.*") for key in _read_list(path)}
    return {key: size for key, size in sizes.items() if key in keys}


def find_damages(root: Path) -> dict[str, str]:
    """Map each damaged weight of a store to what is wrong with it."""
    return {path.name: damage for path in _list_files(root) if (damage := find_damage(path))}


def find_damage(path: Path) -> str:
    """Describe the damage to the file of a weight; empty if there is none."""
    try:
        return "" if f".{_sum_up(path):08x}{_SUFFIX}" == path.name[-13:] else "it has changed"
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"


def sweep(root: Path, is_kept: Callable[[str], bool]) -> None:
    """Remove the lists of builds that are gone, and the weights that are in no other.

    Args:
        root: The store, which the caller has locked exclusively.
        is_kept: Tells whether a build is there, by its digest.

    Raises:
        OSError: One cannot be removed.
    """
    used: set[str] = set()
    for path in (root / _LISTS).glob("*.*"):
        if is_kept(path.name.partition(".")[0]) and path.suffix != UNFINISHED:
            used.update(_read_list(path))
        else:
            path.unlink(missing_ok=True)
    for path in root.glob("*.*"):
        is_whole = path.suffix == _SUFFIX and _read_key(path) in used
        if path.is_file() and not is_whole:
            path.unlink(missing_ok=True)
    if not used:
        (root / _CHECKED).unlink(missing_ok=True)
    for folder in (root / _LISTS, root):
        with suppress(OSError):  # one that is not empty stays
            folder.rmdir()


def digest_weight(weight: Weight, tensors: DigestedTensors) -> str:
    """Hash all that a weight's numbers depend on; the sha256 as hexadecimal digits."""
    made_of = replace_names(weight.made_of, tensors.digest_tensor)
    content = [describe(made_of), weight.dtype, digest_code(weight.made_of)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _map(path: Path, dtype: str) -> Array:
    if dtype == "bfloat16":
        import ml_dtypes  # noqa: F401  # numpy knows the type by its name from here on
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, is_transposed, _ = np.lib.format.read_array_header_1_0(file)
        array: Array = map_array(path, dtype, file.tell(), shape[::-1] if is_transposed else shape)
    return array.T if is_transposed else array


def _list_files(root: Path) -> list[Path]:
    return sorted(root.glob(f"*{_SUFFIX}"))


def _read_key(path: Path) -> str:
    return path.name.partition(".")[0]


def _read_list(path: Path) -> list[str]:
    try:
        keys: list[str] = json.loads(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return []
    return keys


def _sum_up(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum
