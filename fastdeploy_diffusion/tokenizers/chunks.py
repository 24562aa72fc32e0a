"""Chunks of a long prompt: each as many tokens as a text encoder reads at once.

A full chunk ends after its last comma if that is among its last `BACKTRACK` tokens, so that what
stands between two commas stays together, and else where it is full. Source: ``tokenize_line`` in
``sd_hijack_clip.py`` of AUTOMATIC1111's web UI, with its setting ``comma_padding_backtrack`` at 20.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

BACKTRACK = 20


class Token(NamedTuple):
    """One token of a prompt with its weight; 1 is its own."""

    id: int
    weight: float


class Chunk(NamedTuple):
    """What a text encoder reads at once.

    Args:
        input_ids: Bytes of its ids, (T,) int64: begin token, tokens, end token, padding.
        weights: Of each id, T of them; empty where all are 1.
    """

    input_ids: bytes
    weights: tuple[float, ...] = ()


def split_into_chunks(
    stretches: Iterable[Sequence[Token]], room: int, comma: int | None
) -> list[list[Token]]:
    """Split tokens into chunks.

    Args:
        stretches: Tokens between two ``BREAK``; each starts a chunk, even an empty one that is not
            the last.
        room: Tokens of a chunk, without begin and end.
        comma: Its id; ``None`` if the vocabulary has none.

    Returns:
        One chunk or more.
    """
    chunks: list[list[Token]] = []
    chunk: list[Token] = []
    for number, tokens in enumerate(stretches):
        if number:
            chunks.append(chunk)
            chunk = []
        last_comma = None
        for token in tokens:
            if len(chunk) == room:
                end = room
                if token.id != comma and last_comma is not None and room - last_comma <= BACKTRACK:
                    end = last_comma + 1
                chunks.append(chunk[:end])
                chunk, last_comma = chunk[end:], None
            elif token.id == comma:
                last_comma = len(chunk)
            chunk.append(token)
    if chunk or not chunks:
        chunks.append(chunk)
    return chunks
