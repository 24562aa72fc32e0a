"""Return freed memory to the system."""

import ctypes
from collections.abc import Callable


def give_back_freed_memory() -> None:
    """Trim the heap of the C library, if it is glibc."""
    if _trim is not None:
        _trim(0)


def _find_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; TypeError on Windows
        return None


_trim = _find_trim()
