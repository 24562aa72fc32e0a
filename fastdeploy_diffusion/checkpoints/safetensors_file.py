"""One ``.safetensors`` file: its validated header, and its tensors memory-mapped one at a time."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.mapped_file import map_array
from fastdeploy_diffusion.model_files import find_file

# How each stored dtype is mapped into memory. NumPy has no bfloat16: its bits come as uint16.
STORAGE_DTYPES: Mapping[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
# Weights that are quantized, whose scales are another tensor: never read as if they were numbers.
INT8_DTYPES: Mapping[str, str] = {"I8": "|i1"}

# First bytes of other formats, so that the message about a renamed file names its real format.
_FOREIGN_MAGIC = {
    b"PK\x03\x04": "a zip archive, as torch.save writes (a pickle: loading one can execute code)",
    b"\x80": "a pickle (loading one can execute code)",
    b"GGUF": "a GGUF file",
    b"version https://git-lfs": "a Git LFS pointer, not the weights (run `git lfs pull`)",
    b"<": "an HTML page, probably a failed download",
}


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies in its file.

    Attributes:
        dtype: The format's name of the dtype: ``F32``, ``F16``, ``BF16`` …
        shape: Shape as stored.
        offset: First byte, from the beginning of the file.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int


class SafetensorsFile:
    """A safetensors file, opened once for its header; every read maps only the tensor asked for.

    A mapping that stays open counts every page ever touched as resident memory, so each read makes
    its own mapping and drops it with the array.

    Args:
        path: The file. Its header is checked by the safetensors library: length, JSON, dtypes,
            sizes, and that the tensors cover the file without gaps or overlaps.

    Raises:
        CheckpointError: The file cannot be read, is damaged, or holds no tensor.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Opening a pipe would wait for its other end.
        if not find_file(path):
            raise CheckpointError(f"{path} is missing", fix="download or export the weights again")
        try:
            self._identity = self._read_identity()
            self.status = path.stat()
            with safe_open(path, framework="numpy"):
                pass
            self.tensors = _read_header(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{path} is not a readable safetensors file: {error}{_name_foreign_format(path)}",
                allowed="a complete .safetensors file",
                fix="download or export it again, and compare its size and checksum",
            ) from error
        if not self.tensors:
            raise CheckpointError(
                f"{path} holds no tensors", fix="download or export the weights again"
            )

    def read_stored(self, name: str) -> npt.NDArray[Any]:
        """Map one tensor as it is stored.

        Returns:
            A read-only array over the file, bfloat16 as its uint16 bits.

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
            array = map_array(self.path, dtype, tensor.offset, tensor.shape)
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
        self.check_unchanged()
        rest = out.data
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self.tensors[name].offset + start)
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

    def _read_identity(self) -> tuple[int, int]:
        status = self.path.stat()
        return status.st_size, status.st_mtime_ns


def _read_header(path: Path) -> dict[str, StoredTensor]:
    """Read the tensor table of a file that the safetensors library has accepted."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {
        name: StoredTensor(
            entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0]
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _name_foreign_format(path: Path) -> str:
    try:
        with path.open("rb") as file:
            beginning = file.read(32)
    except OSError:
        return ""
    for magic, description in _FOREIGN_MAGIC.items():
        if beginning.startswith(magic):
            return f"; it looks like {description}"
    return ""
