"""Embeddings of texts and pictures encoded before: encoders are not needed for them again."""

import hashlib
import threading
import warnings
from collections import OrderedDict

from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import CacheError
from fastdeploy_diffusion.predictors.build_cache import open_cache
from fastdeploy_diffusion.predictors.embedding_files import Embedding, EmbeddingFiles
from fastdeploy_diffusion.predictors.texts import Text
from fastdeploy_diffusion.runtime.cache import EMBEDDINGS, CacheWarning
from fastdeploy_diffusion.runtime.program import Signature

_MIB = 2**20


class EmbeddingCache:
    """The embeddings of one pipeline that were used last, in memory and, if asked for, on disk.

    In memory they are keyed by the encoder's placement, for the pipeline's weights do not change.
    On disk they are found by the digest of all that the encoder's build depends on.

    Args:
        files: ``None`` to keep none on disk.
    """

    def __init__(self, limit: int, files: EmbeddingFiles | None = None) -> None:
        self._limit = limit
        self._files = files
        self._kept: OrderedDict[tuple[Text, str], Embedding] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def find(self, text: Text, signature: Signature) -> Embedding | None:
        """Look up a text's embedding; ``signature`` is that of its encoder's run."""
        key = text, text.component.describe_placement()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        digest = self._digest(text, signature)
        found = self._files.find(digest) if self._files and digest else None
        if found is not None:
            self._remember(key, found)
        return found

    def keep(self, text: Text, signature: Signature, embedding: Embedding) -> None:
        """Keep the embedding of a text that was encoded just now."""
        self._remember((text, text.component.describe_placement()), embedding)
        digest = self._digest(text, signature)
        if self._files and digest:
            self._files.keep(digest, embedding)

    def clear(self) -> None:
        """Free the memory; files stay."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def _remember(self, key: tuple[Text, str], embedding: Embedding) -> None:
        with self._lock:
            if embedding.values.nbytes > self._limit or key in self._kept:
                return
            self._kept[key] = embedding
            self._bytes += embedding.values.nbytes
            while self._bytes > self._limit:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= oldest.values.nbytes

    def _digest(self, text: Text, signature: Signature) -> str | None:
        """Make the name of a text's file; ``None`` if none can be kept."""
        if self._files is None:
            return None
        try:
            build = text.component.identify(signature)
        except CacheError as error:
            message = f"{text.component.name}: embeddings are not kept on disk: {error.in_one_line}"
            warnings.warn(message, CacheWarning, stacklevel=2)
            return None
        content = hashlib.sha256(f"{build} {tuple(text.wanted)}\n".encode())
        content.update(text.content)
        return content.hexdigest()


def open_embedding_cache(config: DiffusionConfig) -> EmbeddingCache:
    """Open the cache of embeddings that a configuration asks for."""
    limits, builds = config.embedding_cache, open_cache(config)
    files = None
    if limits.disk_mib and builds is not None:
        files = EmbeddingFiles(builds.root / EMBEDDINGS, int(limits.disk_mib * _MIB))
    return EmbeddingCache(int(limits.memory_mib * _MIB), files)
