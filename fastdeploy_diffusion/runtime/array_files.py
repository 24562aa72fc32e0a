"""Named arrays kept on disk, a safetensors file for each set of them, within a limit."""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fastdeploy_diffusion.runtime.cache import CacheWarning
from fastdeploy_diffusion.whole_file import UNFINISHED, write_whole

Arrays = Mapping[str, npt.NDArray[np.float32]]
_SUFFIX = ".safetensors"
_NOTE, _SEAL = "note", "sha256"
# No file takes this long to write; an older one was left by a killed process.
_ABANDONED_SECONDS = 3600


class ArrayFiles:
    """A folder of arrays, shared by any number of processes.

    A file is named after a digest of all that its arrays depend on.

    Args:
        folder: Made when the first file is kept.
        limit: Bytes that all files may take together.
        loss: What is done again where a file is damaged, for the warning.
    """

    def __init__(self, folder: Path, limit: int = 0, loss: str = "") -> None:
        self.folder = folder
        self._limit = limit
        self._loss = loss

    def find(self, digest: str) -> tuple[Arrays, str] | None:
        """Look up a digest's arrays, read-only, and their note; counts as use.

        A damaged file is a `CacheWarning`. It stays where it is: who makes its arrays again
        replaces it, or another process has replaced it by now.
        """
        path = self._locate(digest)
        try:
            found = _read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (SafetensorError, OSError, ValueError) as error:
            message = f"{self._loss}, because {path} is damaged: {error}"
            warnings.warn(message, CacheWarning, stacklevel=2)
            return None
        with suppress(OSError):  # a read-only folder serves too, but does not know its last use
            os.utime(path)
        return found

    def keep(self, digest: str, arrays: Arrays, note: str = "") -> None:
        """Keep arrays under a digest, in place of the least recently used ones if full.

        Raises:
            OSError: The folder cannot be written, or is full.
        """
        path, metadata = self._locate(digest), {_NOTE: note, _SEAL: _seal(digest, arrays, note)}
        self.folder.mkdir(parents=True, exist_ok=True)
        whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        write_whole(path, save(whole, metadata=metadata))
        self.collect(keep=path)

    def measure(self) -> tuple[int, int]:
        """Count the files, and their bytes."""
        sizes = [status.st_size for _, status in self._list()]
        return len(sizes), sum(sizes)

    def find_damage(self) -> dict[str, str]:
        """Map each damaged file to what is wrong with it."""
        found = {}
        for path, _ in self._list():
            try:
                _read(path)
            except (SafetensorError, OSError, ValueError) as error:
                found[path.name] = str(error)
        return found

    def collect(self, keep: Path | None = None) -> None:
        """Remove the least recently used files, until the rest is within the limit.

        Unfinished files of killed processes are removed, too.

        Args:
            keep: A file that stays, however large it is.

        Raises:
            OSError: A file cannot be removed.
        """
        for path, status in self._list(UNFINISHED):
            if time.time() - status.st_mtime > _ABANDONED_SECONDS:
                path.unlink(missing_ok=True)
        total = 0
        for path, status in sorted(self._list(), key=lambda each: -each[1].st_mtime_ns):
            total += status.st_size
            if total > self._limit and path != keep:
                path.unlink(missing_ok=True)

    def _locate(self, digest: str) -> Path:
        return self.folder / f"{digest}{_SUFFIX}"

    def _list(self, suffix: str = _SUFFIX) -> list[tuple[Path, os.stat_result]]:
        found = []
        with suppress(FileNotFoundError):  # nothing is kept yet
            for path in self.folder.glob(f"*{suffix}"):
                with suppress(FileNotFoundError):  # another process makes room, too
                    found.append((path, path.stat()))
        return found


def _read(path: Path) -> tuple[Arrays, str]:
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    note = metadata.get(_NOTE, "")
    if metadata.get(_SEAL) != _seal(path.stem, arrays, note):
        raise ValueError("its content has changed")
    for array in arrays.values():
        array.flags.writeable = False
    return arrays, note


def _seal(digest: str, arrays: Arrays, note: str) -> str:
    """Hash a file's name and content."""
    shapes = {name: [str(array.dtype), array.shape] for name, array in sorted(arrays.items())}
    sealed = hashlib.sha256(json.dumps([digest, note, shapes]).encode())
    for name in shapes:
        sealed.update(np.ascontiguousarray(arrays[name]).data)
    return sealed.hexdigest()
