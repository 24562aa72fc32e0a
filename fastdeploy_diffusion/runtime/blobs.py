"""The tensors of a bundle, each stored once, under its digest."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "I8"}
_ENTRY_BYTES = 256  # of the header, for each tensor; names of 64 letters and up to eight sizes fit


class BlobWriter:
    """Writes a ``.safetensors`` file whose tensors are named by the sha256 of what they hold.

    Args:
        most: Largest number of tensors, for which the header has room.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, file: Path, most: int) -> None:
        self._header: dict[str, Any] = {}
        self._end = 0
        self._room = _ENTRY_BYTES * (most + 1)
        self._stream = file.open("wb")
        self._stream.seek(8 + self._room)  # the header comes last

    def add(self, array: npt.NDArray[Any]) -> str:
        """Write an array, unless it is there, and return its name."""
        stored = np.require(array, requirements="C")
        content = stored.reshape(-1).view(np.uint8).data
        digest = hashlib.sha256(f"{stored.dtype.name} {stored.shape}\n".encode())
        digest.update(content)
        name = digest.hexdigest()
        if name not in self._header:
            self._header[name] = {
                "dtype": _DTYPES[stored.dtype.name],
                "shape": list(stored.shape),
                "data_offsets": [self._end, self._end + content.nbytes],
            }
            self._stream.write(content)
            self._end += content.nbytes
        return name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        """Write the header, which makes the file valid; not after an error."""
        if kind is not None:
            with suppress(OSError):  # the error before is raised; this one follows from it
                self._stream.close()
            return
        with self._stream:
            text = json.dumps(self._header, separators=(",", ":")).encode()
            self._stream.seek(0)
            self._stream.write(self._room.to_bytes(8, "little"))
            self._stream.write(text.ljust(self._room))
