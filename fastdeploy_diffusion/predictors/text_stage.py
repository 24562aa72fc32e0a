"""The first stage of a request: the embeddings of its texts."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.predictors.component import Part
from fastdeploy_diffusion.predictors.embedding_cache import EmbeddingCache
from fastdeploy_diffusion.predictors.embedding_files import Embedding
from fastdeploy_diffusion.predictors.emphasis import emphasize
from fastdeploy_diffusion.predictors.residency import Residency
from fastdeploy_diffusion.predictors.texts import EmbeddingReport, Text, Texts
from fastdeploy_diffusion.runtime.session import Session
from fastdeploy_diffusion.tokenizers.chunks import Chunk

NameT = TypeVar("NameT", bound=Hashable)


class TextStage(Generic[NameT]):
    """The texts of one request: those that are kept are looked up at once, the others encoded.

    Every distinct text, or chunk of a long one, is encoded once, for all its outputs, and by
    itself, so that its embedding does not depend on other texts of the batch: a kept one equals a
    computed one. Weights of words are applied to what is kept.
    """

    def __init__(
        self, texts: Mapping[NameT, Texts], encoders: Sequence[Part], cache: EmbeddingCache
    ) -> None:
        self._texts = texts
        self._encoders = encoders
        self._cache = cache
        self._embeddings: dict[Text, Embedding] = {}
        self._missing: list[Text] = []
        signatures = {part.component: part.signature for part in encoders}
        for text in _list_distinct(texts.values()):
            found = cache.find(text, signatures[text.component])
            if found is None:
                self._missing.append(text)
            else:
                self._embeddings[text] = found

    @property
    def encoders(self) -> list[Part]:
        """The encoders with texts left to encode."""
        needed = {text.component for text in self._missing}
        return [part for part in self._encoders if part.component in needed]

    def encode(self, residency: Residency) -> dict[NameT, list[npt.NDArray[np.float32]]]:
        """Encode the texts; returns the embeddings of all by name, and raises as ``lend``.

        Equal texts of a name have one and the same array, which is read-only.
        """
        for part in self.encoders:
            with residency.lend(part) as session:
                self._read(part, session)
        return {name: self._join_all(texts) for name, texts in self._texts.items()}

    def report(self) -> tuple[EmbeddingReport, ...]:
        """Report, after ``encode``, the origin of the embeddings; a row for each encoder."""
        errors = {text: each.relative_error for text, each in self._embeddings.items()}
        return tuple(
            EmbeddingReport.summarise(part.component, errors, self._missing)
            for part in self._encoders
        )

    def _read(self, part: Part, session: Session) -> None:
        wanted: dict[bytes, list[Text]] = {}
        for text in self._missing:
            if text.component is part.component:
                wanted.setdefault(text.content, []).append(text)
        for input_ids, texts in wanted.items():
            ids = np.frombuffer(input_ids, np.int64)[None].copy()
            outputs = session.run(input_ids=ids)
            for text in texts:
                values = text.wanted.take(outputs)
                embedding = Embedding(values, part.component.report.relative_error)
                self._embeddings[text] = embedding
                self._cache.keep(text, part.signature, embedding)

    def _join_all(self, texts: Texts) -> list[npt.NDArray[np.float32]]:
        joined = {chunks: self._join(texts, chunks) for chunks in dict.fromkeys(texts.chunks)}
        return [joined[chunks] for chunks in texts.chunks]

    def _join(self, texts: Texts, chunks: Sequence[Chunk]) -> npt.NDArray[np.float32]:
        """Join the features of chunks along their tokens, with their weights."""
        parts = [self._embeddings[texts.identify(each)].values for each in chunks]
        weighted = [
            emphasize(part, chunk.weights) if chunk.weights else part
            for part, chunk in zip(parts, chunks, strict=True)
        ]
        joined = np.concatenate(weighted) if len(weighted) > 1 else weighted[0]
        joined.flags.writeable = False
        return joined


def _list_distinct(texts: Iterable[Texts]) -> list[Text]:
    found = (each.identify(chunk) for each in texts for row in each.chunks for chunk in row)
    return list(dict.fromkeys(found))
