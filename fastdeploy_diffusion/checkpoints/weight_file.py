"""A file of weights of any format: its tensors, memory-mapped one at a time."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.mapped_file import map_array
from fastdeploy_diffusion.model_files import find_file

# How each stored dtype is mapped into memory. NumPy has no bfloat16: its bits come as uint16.
STORAGE_DTYPES: Mapping[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
# Weights that are quantized, whose scales are another tensor: never read as if they were numbers.
INT8_DTYPES: Mapping[str, str] = {"I8": "|i1"}


class Encoding(ABC):
    """How the numbers of a tensor are stored that are no array of them.

    Attributes:
        size: In the file, in bytes.
    """

    size: int

    @abstractmethod
    def decode(self, stored: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Compute the numbers.

        Args:
            stored: The bytes of the file.

        Returns:
            A new array of this shape, of the dtype that its `StoredTensor` names.
        """


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies in its file.

    Attributes:
        dtype: Of its numbers, by the format's name: ``F32``, ``F16``, ``BF16`` …; of an encoded
            tensor, the dtype that it is decoded to.
        shape: Shape as stored.
        offset: First byte, from the beginning of the file.
        strides: Of the axes, in numbers; ``None`` if they lie in C order.
        encoding: Decodes the bytes of a quantized or 8-bit tensor; ``None`` for plain numbers.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...] | None = None
    encoding: Encoding | None = None


class WeightFile(ABC):
    """A file of weights; every read maps only the tensor asked for.

    A mapping that stays open counts every page ever touched as resident memory, so each read makes
    its own mapping and drops it with the array.

    Attributes:
        tensors: By the names that the file gives them.
        status: Of the file, when it was opened.

    Raises:
        CheckpointError: There is no such file.
    """

    tensors: Mapping[str, StoredTensor]

    def __init__(self, path: Path) -> None:
        self.path = path
        # Opening a pipe would wait for its other end.
        if not find_file(path):
            raise CheckpointError(f"{path} is missing", fix="download or export the weights again")
        self.status = path.stat()
        self._identity = self._read_identity()

    def read_stored(self, name: str) -> npt.NDArray[Any]:
        """Map one tensor as it is stored.

        Returns:
            A read-only array over the file, bfloat16 as its uint16 bits; a new one, if decoded.

        Raises:
            CheckpointError: The dtype cannot hold weights here, or the file changed since opening.
        """
        tensor = self.tensors[name]
        dtypes = {**STORAGE_DTYPES, **INT8_DTYPES}
        if tensor.dtype not in dtypes:
            raise CheckpointError(
                f"{self.path}: tensor {name!r} has dtype {tensor.dtype}",
                allowed=", ".join(STORAGE_DTYPES),
                fix="use the float16 or float32 files of this checkpoint",
            )
        self.check_unchanged()
        dtype = np.dtype(dtypes[tensor.dtype])
        if 0 in tensor.shape:
            return np.empty(tensor.shape, dtype)
        try:
            # Copied where written, not read-only: OpenVINO takes only memory that could be written.
            # Callers get read-only arrays all the same.
            array = self._map(tensor, dtype)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.path}: cannot read tensor {name!r}: {error}") from error
        array.flags.writeable = False
        return array

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """Read one tensor as float32: exact from F32, F16 and BF16, rounded from F64.

        Raises:
            CheckpointError: As ``read_stored``; or the tensor is quantized, or an F64 value is too
                large for float32.
        """
        return self.to_float32(name, self.read_stored(name))

    def to_float32(self, name: str, stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Convert values of tensor ``name``, as ``read_stored`` gives them, to float32."""
        if self.tensors[name].dtype == "BF16":
            return (stored.astype(np.uint32) << 16).view(np.float32)  # float32's upper half
        if self.tensors[name].dtype in INT8_DTYPES:
            raise CheckpointError(
                f"{self.path}: tensor {name!r} is quantized, without scales",
                allowed=", ".join(STORAGE_DTYPES),
            )
        try:
            with np.errstate(over="raise"):
                # Headers of odd length leave the mapping unaligned, which not every reader takes.
                return np.require(stored, np.float32, "A")
        except FloatingPointError as error:
            raise CheckpointError(
                f"{self.path}: tensor {name!r} has values that float32 cannot hold",
                allowed=f"magnitudes up to {np.finfo(np.float32).max}",
            ) from error

    def read_bytes(self, name: str, start: int, out: npt.NDArray[np.uint8]) -> None:
        """Copy a part of one tensor, as it is stored, into memory of the caller's.

        The file is not mapped: nothing of it counts as resident memory, and a file that is cut
        short meanwhile is an error, where touching a mapping would end the process.

        Args:
            start: First byte, from the tensor's own beginning.
            out: Contiguous; filled completely.

        Raises:
            CheckpointError: The file cannot be read, ends too early, or changed since opening.
        """
        tensor = self.tensors[name]
        if tensor.strides is not None or tensor.encoding is not None:
            content = self.read_stored(name).reshape(-1).view(np.uint8)
            out[...] = content[start : start + len(out)]
            return
        self.check_unchanged()
        rest = out.data
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(tensor.offset + start)
                while len(rest):
                    count = file.readinto(rest)
                    if not count:
                        raise OSError(f"the file ends {len(rest)} bytes too early")
                    rest = rest[count:]
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot read tensor {name!r}: {error}") from error

    def check_unchanged(self) -> None:
        """Refuse a file that was replaced or edited after its header was read.

        Raises:
            CheckpointError: Size or modification time differ from those at opening.
        """
        try:
            identity = self._read_identity()
        except OSError as error:
            raise CheckpointError(f"{self.path} can no longer be read: {error}") from error
        if identity != self._identity:
            raise CheckpointError(
                f"{self.path} changed on disk after it was opened", fix="open the checkpoint again"
            )

    def _map(self, tensor: StoredTensor, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Map a tensor; one that is encoded, or lies in another order, is a new array."""
        if tensor.encoding is not None:
            stored = map_array(self.path, np.uint8, tensor.offset, [tensor.encoding.size])
            return tensor.encoding.decode(stored, tensor.shape)
        if tensor.strides is None:
            return map_array(self.path, dtype, tensor.offset, tensor.shape)
        steps = zip(tensor.shape, tensor.strides, strict=True)
        span = 1 + sum((size - 1) * stride for size, stride in steps)
        numbers = map_array(self.path, dtype, tensor.offset, [span])
        strides = [stride * dtype.itemsize for stride in tensor.strides]
        copied: npt.NDArray[Any] = as_strided(numbers, tensor.shape, strides).copy()
        return copied

    def _read_identity(self) -> tuple[int, int]:
        status = self.path.stat()
        return status.st_size, status.st_mtime_ns
