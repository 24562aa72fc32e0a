"""CUDA for TensorRT sessions: checked calls, and memory on the device."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdeploy_diffusion.errors import EngineError


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of ``cuda.bindings.runtime``.

    Returns:
        Its value after the status, ``None`` without one.

    Raises:
        EngineError: Its status is an error, which is named.
    """
    status, *values = function(*arguments)
    if int(status) != 0:
        raise EngineError(f"{function.__name__} failed: {status.name}")
    return values[0] if values else None


def use_device(index: int) -> None:
    """Make a GPU the current one of this thread: CUDA keeps it for each thread."""
    from cuda.bindings import runtime

    call(runtime.cudaSetDevice, index)


class DeviceBuffer:
    """Memory on the current device; ``close`` gives it back.

    Args:
        size: Bytes, at least 1.
    """

    def __init__(self, size: int) -> None:
        from cuda.bindings import runtime

        self.size = size
        self.address = int(call(runtime.cudaMalloc, size))

    def upload(self, array: np.ndarray, stream: Any) -> None:
        """Queue a copy of a C-contiguous array, which must live until the stream is done."""
        from cuda.bindings import runtime

        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        call(runtime.cudaMemcpyAsync, self.address, array.ctypes.data, array.nbytes, kind, stream)

    def download(self, array: np.ndarray, stream: Any) -> None:
        """Queue a copy into a C-contiguous array, whole once the stream is done."""
        from cuda.bindings import runtime

        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        call(runtime.cudaMemcpyAsync, array.ctypes.data, self.address, array.nbytes, kind, stream)

    def close(self) -> None:
        """Free the memory; called once."""
        from cuda.bindings import runtime

        call(runtime.cudaFree, self.address)
