"""Reads a SentencePiece model, a protocol buffer, as far as a unigram tokenizer needs it.

The fields are those of ``sentencepiece_model.proto``; the encoding is described at
https://protobuf.dev/programming-guides/encoding.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.model_files import damage, read_bytes

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_UNIGRAM, _UNKNOWN = 1, 2  # of the model types, and of the types of pieces
_VARINT_BYTES = 10  # of a 64-bit number

Field = tuple[int, int | bytes]


@dataclass(frozen=True)
class SentencePieces:
    """The content of a unigram model.

    Attributes:
        vocabulary: Pieces and their log probabilities, in the order of their ids.
        unknown_id: Id of the piece that stands for all others.
        characters: The compiled map of characters that normalises texts; empty for none.
    """

    vocabulary: tuple[tuple[str, float], ...]
    unknown_id: int
    characters: bytes


def read_sentencepiece(file: Path) -> SentencePieces:
    """Read a ``spiece.model``.

    Raises:
        CheckpointError: It is damaged, or not a unigram model.
    """
    data = read_bytes(file)
    vocabulary: list[tuple[str, float]] = []
    unknown_ids: list[int] = []
    characters, kind = b"", _UNIGRAM
    try:
        for number, value in _read_fields(data):
            if number == 1:
                piece = dict(_read_fields(_as_bytes(value)))
                if piece.get(3) == _UNKNOWN:
                    unknown_ids.append(len(vocabulary))
                score = struct.unpack("<f", _as_bytes(piece.get(2, bytes(4))))[0]
                vocabulary.append((_as_bytes(piece[1]).decode("utf-8"), score))
            elif number == 2:
                kind = dict(_read_fields(_as_bytes(value))).get(3, _UNIGRAM)  # type: ignore[assignment]
            elif number == 3:
                characters = _as_bytes(dict(_read_fields(_as_bytes(value))).get(2, b""))
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise damage(file, f"it is no SentencePiece model ({error})") from None
    if not all(math.isfinite(score) for _, score in vocabulary):
        raise damage(file, "a piece's probability is not a number")
    if kind != _UNIGRAM:
        raise CheckpointError(f"{file} holds a model of the type {kind}", allowed="1, unigram")
    if len(unknown_ids) != 1:
        raise damage(file, f"it has {len(unknown_ids)} pieces for what is unknown")
    return SentencePieces(tuple(vocabulary), unknown_ids[0], characters)


def _read_fields(data: bytes) -> Iterator[Field]:
    """Iterate over the fields of a message: number and value."""
    place = 0
    while place < len(data):
        key, place = _read_varint(data, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _read_varint(data, place)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, place = _read_varint(data, place)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind} at byte {place}")
        if place + size > len(data):
            raise ValueError("it ends too early")
        yield key >> 3, data[place : place + size]
        place += size


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    """Read seven bits a byte, the lowest first; returns the value and the end."""
    value = 0
    for index, byte in enumerate(data[place : place + _VARINT_BYTES]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, place + index + 1
    raise ValueError(f"the number at byte {place} does not end")


def _as_bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes are expected")
    return value
