"""The NVIDIA GPUs of this machine, asked of their driver: no package is needed."""

import ctypes
import sys
from typing import Any

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
# CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_MAJOR, _MINOR = 75, 76


def list_gpus() -> list[str]:
    """Name the architecture of every GPU, in the driver's order.

    Returns:
        Their compute capabilities as NVIDIA writes them, ``"sm86"`` for 8.6; empty without a
        driver or a usable GPU.
    """
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return []
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    return [
        f"sm{_read(driver, index, _MAJOR)}{_read(driver, index, _MINOR)}"
        for index in range(count.value)
    ]


def _read(driver: Any, index: int, attribute: int) -> int:
    device, value = ctypes.c_int(0), ctypes.c_int(0)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value
