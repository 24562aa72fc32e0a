"""Embeddings of texts kept on disk, within a limit."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.runtime.array_files import ArrayFiles
from fastdeploy_diffusion.runtime.cache import CacheWarning

_TENSOR = "embedding"


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
        self._files = ArrayFiles(folder, limit, "a text is encoded again")

    def find(self, digest: str) -> Embedding | None:
        """Look up the embedding of a digest, whole and unchanged; counts as use."""
        found = self._files.find(digest)
        if found is None:
            return None
        arrays, error = found
        return Embedding(arrays[_TENSOR], float(error) if error else None)

    def keep(self, digest: str, embedding: Embedding) -> None:
        """Keep an embedding under a digest, in place of the least recently used ones if full."""
        error = "" if embedding.relative_error is None else repr(embedding.relative_error)
        try:
            self._files.keep(digest, {_TENSOR: embedding.values}, error)
        except OSError as problem:
            message = (
                f"the embedding of a text is not kept in {self._files.folder}: "
                f"{problem.strerror or problem}; make room (fastdeploy-diffusion cache rm --all), "
                "or leave out embedding_cache.disk_mib"
            )
            warnings.warn(message, CacheWarning, stacklevel=2)
