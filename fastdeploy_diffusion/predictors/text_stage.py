"""The first stage of a request: the embeddings of its texts."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.predictors.component import Part
from fastdeploy_diffusion.predictors.embedding_cache import EmbeddingCache
from fastdeploy_diffusion.predictors.embedding_files import Embedding
from fastdeploy_diffusion.predictors.residency import Residency
from fastdeploy_diffusion.predictors.texts import EmbeddingReport, Text, Texts
from fastdeploy_diffusion.runtime.session import Session

NameT = TypeVar("NameT", bound=Hashable)


class TextStage(Generic[NameT]):
    """The texts of one request: those that are kept are looked up at once, the others encoded.

    Every distinct text is encoded once, for all its outputs, and by itself, so that its embedding
    does not depend on other texts of the batch: a kept one equals a computed one.
    """

    def __init__(
        self, texts: Mapping[NameT, Texts], encoders: Sequence[Part], cache: EmbeddingCache
    ) -> None:
        self._texts = {name: each.split() for name, each in texts.items()}
        self._encoders = encoders
        self._cache = cache
        self._embeddings: dict[Text, Embedding] = {}
        self._missing: list[Text] = []
        signatures = {part.component: part.signature for part in encoders}
        for text in dict.fromkeys(text for each in self._texts.values() for text in each):
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

        Equal texts have one and the same array, which is read-only.
        """
        for part in self.encoders:
            with residency.lend(part) as session:
                self._read(part, session)
        return {
            name: [self._embeddings[text].values for text in texts]
            for name, texts in self._texts.items()
        }

    def report(self) -> tuple[EmbeddingReport, ...]:
        """Report, after ``encode``, the origin of the embeddings; a row for each encoder."""
        return tuple(self._report(part) for part in self._encoders)

    def _read(self, part: Part, session: Session) -> None:
        wanted: dict[bytes, list[Text]] = {}
        for text in self._missing:
            if text.component is part.component:
                wanted.setdefault(text.input_ids, []).append(text)
        for input_ids, texts in wanted.items():
            ids = np.frombuffer(input_ids, np.int64)[None].copy()
            outputs = session.run(input_ids=ids)
            for text in texts:
                values = text.wanted.take(outputs)
                embedding = Embedding(values, part.component.report.relative_error)
                self._embeddings[text] = embedding
                self._cache.keep(text, part.signature, embedding)

    def _report(self, part: Part) -> EmbeddingReport:
        own = {
            text: each.relative_error
            for text, each in self._embeddings.items()
            if text.component is part.component
        }
        errors = [error for error in own.values() if error is not None]
        read = {text.input_ids for text in self._missing if text.component is part.component}
        distinct = {text.input_ids for text in own}
        return EmbeddingReport(
            part.component.name,
            texts=len(distinct),
            kept=len(distinct - read),
            relative_error=max(errors) if errors and len(errors) == len(own) else None,
        )
