"""Texts of a request for text encoders, and the outputs that it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.predictors.component import Component
from fastdeploy_diffusion.tokenizers.chunks import Chunk
from fastdeploy_diffusion.tokenizers.texts import TokenizedPrompts


class Wanted(NamedTuple):
    """The part of an encoder's outputs that a request uses.

    Args:
        layer: Which entry of an output that has one for each layer, (L, B, …), from the last: -1.
    """

    output: str
    layer: int | None = None

    def take(self, outputs: Mapping[str, np.ndarray]) -> npt.NDArray[np.float32]:
        """Copy it from the outputs of a run on one text or picture, as a read-only array."""
        array = outputs[self.output]
        rows = array if self.layer is None else array[self.layer]
        taken: npt.NDArray[np.float32] = rows[0].copy()
        taken.flags.writeable = False
        return taken


class Text(NamedTuple):
    """One text for one text encoder, or a chunk of a long one; or a picture for a vision tower.

    Args:
        content: Bytes of its ids, (T,) int64; or the digest of a picture as the tower takes it.
    """

    component: Component
    content: bytes
    wanted: Wanted


@dataclass(frozen=True)
class Texts:
    """Texts that one text encoder reads for one request.

    Args:
        chunks: Of each picture's text, one or more.
    """

    component: Component
    chunks: tuple[tuple[Chunk, ...], ...]
    wanted: Wanted

    @classmethod
    def tokenize(
        cls,
        component: Component,
        texts: Sequence[str],
        encode: Callable[[Sequence[str]], Sequence[tuple[Chunk, ...]]],
        wanted: Wanted,
    ) -> Texts:
        """Tokenize texts, each distinct one once, so that each warning comes once."""
        distinct = list(dict.fromkeys(texts))
        encoded = dict(zip(distinct, encode(distinct), strict=True))
        return cls(component, tuple(encoded[text] for text in texts), wanted)

    def identify(self, chunk: Chunk) -> Text:
        """Make the text that is encoded for a chunk; weights come after that."""
        return Text(self.component, chunk.input_ids, self.wanted)


def take_rows(prompts: TokenizedPrompts) -> list[tuple[Chunk, ...]]:
    """Take tokenized prompts as texts of one chunk, without weights."""
    return [(Chunk(row.tobytes()),) for row in prompts.input_ids]


@dataclass(frozen=True)
class EmbeddingReport:
    """The origin of the embeddings of a request's texts, or of its image prompt.

    Args:
        texts: Number of different texts, of a long one of its chunks; of a vision tower, of
            pictures.
        kept: How many of them were kept from earlier; if all, the encoder was not even loaded.
        relative_error: Proof of the builds that computed them; ``None`` where one has none.
    """

    component: str
    texts: int
    kept: int
    relative_error: float | None

    @classmethod
    def summarise(
        cls,
        component: Component,
        errors: Mapping[Text, float | None],
        missing: Iterable[Text],
    ) -> EmbeddingReport:
        """Summarise the embeddings of one component.

        Args:
            errors: Of the builds that computed the embeddings, of all components.
            missing: Those that were not kept from earlier, of all components.
        """
        own = {text: error for text, error in errors.items() if text.component is component}
        known = [error for error in own.values() if error is not None]
        distinct = {text.content for text in own}
        computed = {text.content for text in missing if text.component is component}
        return cls(
            component.name,
            texts=len(distinct),
            kept=len(distinct - computed),
            relative_error=max(known) if known and len(known) == len(own) else None,
        )
