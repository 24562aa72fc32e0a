"""Compiled maps of characters, as SentencePiece writes them into its models."""

import struct
from collections.abc import Mapping

CHARACTERS = {
    "Ａ": "A",
    "ａ": "a",
    "ﬁ": "fi",
    "①": "1",
    "㎏": "kg",
    "…": "...",
    "\u3000": " ",
    "\u00ad": "",  # a soft hyphen is left out
    "İ": "I",
    "猫": "chat",
    "＜": "<",
    "＞": ">",
}
_BLOCK = 256
_LEAF = 1 << 31


def compile_characters(characters: Mapping[str, str] = CHARACTERS) -> bytes:
    """Write the trie of all keys, as darts-clone does, and the texts that they stand for."""
    texts, root = b"", {}
    for key, text in characters.items():
        node = root
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[0] = len(texts)  # ends a key
        texts += text.encode() + b"\0"
    units: dict[int, int] = {0: 0}
    _place(units, 0, 0, root)
    size = -(-(max(units) + 1) // _BLOCK) * _BLOCK
    trie = struct.pack(f"<{size}I", *(units.get(index, 0) for index in range(size)))
    return struct.pack("<I", len(trie)) + trie + texts


def _place(units: dict[int, int], place: int, label: int, node: dict) -> None:
    """Give a node's unit its offset, and its children the units that it leads to."""
    base = next(
        base
        for base in range(1, 1 << 20)
        if all(base ^ byte not in units for byte in node) and base != place
    )
    units[place] = label | (0 in node) << 8 | (place ^ base) << 10
    for byte in node:
        units[base ^ byte] = 0
    for byte, child in node.items():
        if byte == 0:
            units[base] = _LEAF | child
        else:
            _place(units, base ^ byte, byte, child)
