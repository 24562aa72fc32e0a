"""A GGUF file, as city96's tools and stable-diffusion.cpp write them.

The format is that of ``docs/gguf.md`` in the repository of ggml. What its numbers are multiplied
out to is left to the package ``gguf``, which is needed for quantized tensors alone.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.checkpoints.weight_file import Encoding, StoredTensor, WeightFile
from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.shown import show

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
# Of more than any model has, a file is damaged: it would be read for minutes.
_MOST_ENTRIES, _MOST_ELEMENTS, _LONGEST_NAME, _MOST_AXES = 65_536, 2_000_000, 65_536, 4
_ALIGNMENT, _ARCHITECTURE = "general.alignment", "general.architecture"
_SHAPE = "comfy.gguf.orig_shape."  # of tensors that were reshaped to fill whole blocks
# Types of values, by their numbers; 8 is a text, and 9 an array.
_FORMATS = dict(enumerate(["B", "b", "H", "h", "I", "i", "f", "?"])) | {10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
# Types of tensors that are plain numbers.
_PLAIN = {
    0: ("F32", 4),
    1: ("F16", 2),
    28: ("F64", 8),
    30: ("BF16", 2),
    24: ("I8", 1),
    25: ("I16", 2),
    26: ("I32", 4),
    27: ("I64", 8),
}


class GGUFError(Exception):
    """What is wrong with a file."""


class GGUFFile(WeightFile):
    """A GGUF file, opened once for its header.

    Quantized tensors are read as float32, one at a time.

    Attributes:
        architecture: What the file says of its network: ``flux``, ``sdxl`` …; may be empty.

    Raises:
        CheckpointError: The file cannot be read, is damaged, or has tensors of unknown types; or it
            is quantized, and the package ``gguf`` is not installed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            with (
                path.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
            ):
                values, self.tensors = _Header(content).read()
        except (GGUFError, OSError, ValueError, struct.error, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"{path} is not a readable GGUF file: {error}",
                allowed="a complete .gguf file of version 2 or 3",
                fix="download or export it again, and compare its size and checksum",
            ) from error
        if not self.tensors:
            raise CheckpointError(f"{path} holds no tensors", fix="download the weights again")
        self.architecture = str(values.get(_ARCHITECTURE, ""))


@dataclass(frozen=True)
class Quantized(Encoding):
    """Blocks of small integers, with scales.

    Args:
        kind: The number of the type in GGUF.
        size: In bytes.
        row_size: Of a row, in bytes.
    """

    kind: int
    size: int
    row_size: int

    def decode(self, stored: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Compute the numbers, in float32."""
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        rows = stored.reshape(-1, self.row_size)
        numbers: npt.NDArray[Any] = dequantize(rows, GGMLQuantizationType(self.kind))
        return numbers.reshape(shape)


class _Header:
    """Reads the header of a file, which may be damaged or an attack."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content, self._place = content, 0

    def read(self) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
        """Read the values and the tensors."""
        if self._content[: len(_MAGIC)] != _MAGIC:
            raise GGUFError("it does not begin as one")
        self._place = len(_MAGIC)
        if (version := self._number("I")) not in _VERSIONS:
            raise GGUFError(f"it is of version {version}, or big-endian")
        tensors, entries = self._number("Q"), self._number("Q")
        if max(tensors, entries) > _MOST_ENTRIES:
            raise GGUFError(f"it claims {tensors} tensors and {entries} values")
        values: dict[str, Any] = {}
        for _ in range(entries):
            name = self._text()
            values[name] = self._value(self._number("I"))
        places = [self._describe_tensor() for _ in range(tensors)]
        alignment = values.get(_ALIGNMENT, 32)
        if not isinstance(alignment, int) or not 0 < alignment <= _LONGEST_NAME:
            raise GGUFError(f"{_ALIGNMENT} is {show(alignment)}")
        begin = -(-self._place // alignment) * alignment
        found = {}
        for name, shape, kind, offset in places:
            if name in found:
                raise GGUFError(f"it holds tensor {show(name)} twice")
            found[name] = self._place_tensor(name, shape, kind, begin + offset)
            known = values.get(_SHAPE + name)
            if isinstance(known, list):
                found[name] = _reshape(name, found[name], known)
        return values, found

    def _number(self, form: str) -> Any:
        (value,) = struct.unpack_from(f"<{form}", self._content, self._place)
        self._place += struct.calcsize(form)
        return value

    def _text(self, longest: int = _LONGEST_NAME) -> str:
        length = self._number("Q")
        if length > longest or self._place + length > len(self._content):
            raise GGUFError(f"a text in it has {length} bytes")
        text = self._content[self._place : self._place + length]
        self._place += length
        return text.decode()

    def _value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self._text(longest=len(self._content))
        if kind in _FORMATS:
            return self._number(_FORMATS[kind])
        if kind != _ARRAY:
            raise GGUFError(f"a value in it is of type {kind}")
        kind, count = self._number("I"), self._number("Q")
        if count > _MOST_ELEMENTS:
            raise GGUFError(f"a list in it has {count} elements")
        if kind == _TEXT:  # a vocabulary
            for _ in range(count):
                self._text()
            return None
        if kind not in _FORMATS:
            raise GGUFError(f"a list in it is of type {kind}")
        form = f"<{count}{_FORMATS[kind]}"
        elements = list(struct.unpack_from(form, self._content, self._place))
        self._place += struct.calcsize(form)
        return elements

    def _describe_tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, axes = self._text(), self._number("I")
        if axes > _MOST_AXES:
            raise GGUFError(f"tensor {show(name)} has {axes} axes")
        # The innermost axis comes first.
        shape = tuple(self._number("Q") for _ in range(axes))[::-1]
        return name, shape, self._number("I"), self._number("Q")

    def _place_tensor(
        self, name: str, shape: tuple[int, ...], kind: int, offset: int
    ) -> StoredTensor:
        if kind in _PLAIN:
            dtype, width = _PLAIN[kind]
            tensor, size = StoredTensor(dtype, shape, offset), prod(shape) * width
        else:
            block, width = find_block(kind)
            if not shape or shape[-1] % block:
                raise GGUFError(f"tensor {show(name)} of shape {shape} has no whole blocks")
            row_size = shape[-1] // block * width
            size = prod(shape[:-1]) * row_size
            encoding = Quantized(kind, size, row_size)
            tensor = StoredTensor("F32", shape, offset, encoding=encoding)
        if size and offset + size > len(self._content):
            raise GGUFError(f"tensor {show(name)} reaches beyond its end")
        return tensor


@cache
def find_block(kind: int) -> tuple[int, int]:
    """Find how many numbers a block of a type has, and how many bytes."""
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError:
        raise CheckpointError(
            "a GGUF file with quantized tensors is given, and the package gguf is not installed",
            fix='pip install "fastdeploy-diffusion[gguf]"',
        ) from None
    try:
        found = GGMLQuantizationType(kind)
        block, width = GGML_QUANT_SIZES[found]
        dequantize(np.zeros((1, width), np.uint8), found)
    except (ValueError, NotImplementedError):
        raise GGUFError(f"it has tensors of type {kind}, which is not supported") from None
    return block, width


def _reshape(name: str, tensor: StoredTensor, shape: list[Any]) -> StoredTensor:
    if not all(isinstance(each, int) and each > 0 for each in shape) or prod(shape) != prod(
        tensor.shape
    ):
        raise GGUFError(f"tensor {show(name)} of shape {tensor.shape} is said to have {shape}")
    return StoredTensor(tensor.dtype, tuple(shape), tensor.offset, encoding=tensor.encoding)
