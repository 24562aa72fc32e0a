"""Embeddings of texts kept on disk, a safetensors file each, within a limit."""

import hashlib
import os
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fastdeploy_diffusion.runtime.cache import CacheWarning
from fastdeploy_diffusion.whole_file import UNFINISHED, write_whole

_SUFFIX = ".safetensors"
_TENSOR = "embedding"
# No file takes this long to write; an older one was left by a killed process.
_ABANDONED_SECONDS = 3600


@dataclass(frozen=True)
class Embedding:
    """The output of a text encoder for one text.

    Args:
        values: (T, D) or (P,) float32, read-only.
        relative_error: Proof of the build that computed it: the largest difference from the Paddle
            float32 layer, relative to the layer's largest output.
    """

    values: npt.NDArray[np.float32]
    relative_error: float | None


class EmbeddingFiles:
    """A folder of embeddings, shared by any number of processes.

    A file is named after a digest of the encoder's build and the token ids; the text itself is not
    written. A file that cannot be read or written is a `CacheWarning`, never an error.

    Args:
        folder: Made when the first embedding is kept.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit

    def find(self, digest: str) -> Embedding | None:
        """Look up the embedding of a digest, whole and unchanged; counts as use.

        A damaged file is a `CacheWarning`. It stays where it is: the text is encoded again, and
        replaces it, or another process has replaced it by now.
        """
        path = self._folder / f"{digest}{_SUFFIX}"
        try:
            embedding = _read(path)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError) as error:
            _warn(f"a text is encoded again, because {path} is damaged: {error}")
            return None
        with suppress(OSError):  # a read-only folder serves too, but does not know its last use
            os.utime(path)
        return embedding

    def keep(self, digest: str, embedding: Embedding) -> None:
        """Keep an embedding under a digest, in place of the least recently used ones if full."""
        path = self._folder / f"{digest}{_SUFFIX}"
        error = repr(embedding.relative_error)
        values = embedding.values
        notes = {"relative_error": error, "sha256": _seal(digest, values, error)}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, save({_TENSOR: values}, metadata=notes))
            self.collect(keep=path)
        except OSError as problem:
            _warn(
                f"the embedding of a text is not kept in {self._folder}: "
                f"{problem.strerror or problem}; make room (fastdeploy-diffusion cache rm --all), "
                "or leave out embedding_cache.disk_mib"
            )

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

    def _list(self, suffix: str = _SUFFIX) -> list[tuple[Path, os.stat_result]]:
        found = []
        with suppress(FileNotFoundError):  # nothing is kept yet
            for path in self._folder.glob(f"*{suffix}"):
                with suppress(FileNotFoundError):  # another process makes room, too
                    found.append((path, path.stat()))
        return found


def _read(path: Path) -> Embedding:
    with safe_open(path, framework="numpy") as file:
        notes, values = file.metadata() or {}, file.get_tensor(_TENSOR)
    error = notes.get("relative_error", "")
    if notes.get("sha256") != _seal(path.stem, values, error):
        raise ValueError("its content has changed")
    values.flags.writeable = False
    return Embedding(values, None if error == "None" else float(error))


def _seal(digest: str, values: npt.NDArray[np.float32], error: str) -> str:
    """Hash a file's name and content."""
    sealed = hashlib.sha256(f"{digest} {values.dtype} {values.shape} {error}\n".encode())
    sealed.update(np.ascontiguousarray(values).data)
    return sealed.hexdigest()


def _warn(message: str) -> None:
    warnings.warn(message, CacheWarning, stacklevel=2)
