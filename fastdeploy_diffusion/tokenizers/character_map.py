"""Checks the compiled map of characters with which SentencePiece normalises texts.

It is a trie as a double array of 32-bit units, as darts-clone writes it
(https://github.com/s-yata/darts-clone), and the texts that stand for the characters found in it.
The `tokenizers` library does not check bounds, and would crash in the middle of a prompt.
"""

import base64
from pathlib import Path
from typing import Any

import numpy as np

from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.model_files import damage

_BLOCK = 256  # units that a node's children may lie in
_VALUE = np.uint32(1 << 31)  # marks a unit that holds a value; the rest of it is the value
_HAS_LEAF, _IS_FAR = np.uint32(1 << 8), np.uint32(1 << 9)


def check_character_map(file: Path, data: bytes) -> None:
    """Refuse a map with a pointer out of its bounds.

    Args:
        file: For the message.
        data: The size of the trie in bytes, uint32, the trie, and the texts in UTF-8.

    Raises:
        CheckpointError: It is damaged.
    """
    size = int.from_bytes(data[:4], "little")
    if not size or size % 4 or len(data) < 4 + size:
        raise _refuse(file)
    units = np.frombuffer(data, "<u4", size // 4, 4)
    texts = data[4 + size :]
    try:
        texts.decode("utf-8")
    except UnicodeDecodeError:
        raise _refuse(file) from None

    nodes = np.flatnonzero(units < _VALUE)
    offsets = units[nodes] >> 10 << np.where(units[nodes] & _IS_FAR, 8, 0).astype(np.uint32)
    children = nodes ^ offsets  # each is combined with a byte to find a child
    if (children | (_BLOCK - 1)).max(initial=0) >= len(units):
        raise _refuse(file)
    starts = units[children[(units[nodes] & _HAS_LEAF) != 0]] & ~_VALUE
    if starts.max(initial=0) > len(texts):
        raise _refuse(file)
    first_bytes = np.frombuffer(texts + b"\0", np.uint8)[starts]
    if (first_bytes & 0xC0 == 0x80).any():  # in the middle of a character
        raise _refuse(file)


def check_normalizer(file: Path, normalizer: Any) -> None:
    """Check each compiled map in the section ``normalizer`` of a ``tokenizer.json``.

    Raises:
        CheckpointError: A map is damaged, or something else.
    """
    if isinstance(normalizer, list):
        for each in normalizer:
            check_normalizer(file, each)
    elif isinstance(normalizer, dict):
        check_normalizer(file, list(normalizer.values()))
        if "precompiled_charsmap" in normalizer:
            encoded = normalizer["precompiled_charsmap"]
            try:
                data = base64.b64decode(encoded, validate=True)
            except (TypeError, ValueError):
                raise _refuse(file) from None
            check_character_map(file, data)


def _refuse(file: Path) -> CheckpointError:
    return damage(file, "its map of characters points outside of itself")
