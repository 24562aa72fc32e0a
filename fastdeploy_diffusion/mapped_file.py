"""Parts of files as arrays that are mapped into memory and hold no file descriptor.

`mmap.mmap`, and with it `numpy.memmap`, keeps a duplicate of the descriptor for each mapping. A
network has more tensors than a process may usually open files (1024).
"""

import ctypes
import mmap
import os
import weakref
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_FAILED = ctypes.c_void_p(-1).value


class MappedPages:
    """Pages of a file, mapped until the last array over them has gone.

    Args:
        address: Of the first byte.
        size: In bytes.
    """

    def __init__(self, address: int, size: int) -> None:
        self._address, self._size = address, size
        data = {"data": (address, False), "shape": (size,), "typestr": "|u1", "version": 3}
        self.__array_interface__: dict[str, Any] = data
        weakref.finalize(self, _LIBC.munmap, address, size).atexit = False

    def give_back(self) -> None:
        """Free the memory of the pages; they are read from the file again when touched."""
        _LIBC.madvise(self._address, self._size, mmap.MADV_DONTNEED)


def map_array(
    path: Path, dtype: npt.DTypeLike, offset: int, shape: Sequence[int]
) -> npt.NDArray[Any]:
    """Map a part of a file.

    Args:
        offset: First byte, from the beginning of the file.
        shape: Of the array, in C order; not empty.

    Returns:
        An array that is copied where it is written; the file never changes.

    Raises:
        OSError: The file cannot be opened or mapped.
        ValueError: It is too short.
    """
    dtype = np.dtype(dtype)
    size = prod(shape) * dtype.itemsize
    with path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size
        if offset + size > length:
            raise ValueError(f"it has {length} bytes of {offset + size}")
        if not _LIBC:
            mapped: npt.NDArray[Any] = np.memmap(file, dtype, "c", offset, tuple(shape))
            return mapped.view(np.ndarray)
        skipped = offset % mmap.ALLOCATIONGRANULARITY
        address = _LIBC.mmap(
            None,
            skipped + size,
            mmap.PROT_READ | mmap.PROT_WRITE,
            mmap.MAP_PRIVATE,
            file.fileno(),
            offset - skipped,
        )
    if address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    pages = np.asarray(MappedPages(address, skipped + size))
    return pages[skipped:].view(dtype).reshape(shape)


def find_pages(array: npt.NDArray[Any]) -> MappedPages | None:
    """Find the pages that an array lies in; ``None`` if they cannot be given back."""
    base = _find_base(array)
    return base if isinstance(base, MappedPages) else None


def lies_in_file(array: npt.NDArray[Any]) -> bool:
    """Tell whether an array is mapped."""
    return isinstance(_find_base(array), MappedPages | mmap.mmap)


def _find_base(array: npt.NDArray[Any]) -> Any:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base


def _open_libc() -> Any:
    """Load the functions of the C library; ``None`` on Windows, which has no such limit."""
    if os.name != "posix":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc.mmap.restype = pointer
    libc.mmap.argtypes = (pointer, size, number, number, number, ctypes.c_long)
    libc.munmap.argtypes = (pointer, size)
    libc.madvise.argtypes = (pointer, size, number)
    return libc


_LIBC = _open_libc()
