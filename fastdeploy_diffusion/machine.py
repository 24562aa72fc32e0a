"""Facts of this machine: its processor, its memory, its packages."""

import functools
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# The instruction sets that speed up convolutions and matrix products; x86, then Arm.
CPU_FLAGS = (
    *("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_bf16", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "sve", "i8mm", "bf16"),
)

# Of x86: those that add products of eight bits up in 32 bits.
INT8_FLAGS = ("avx_vnni", "avx512_vnni", "amx_int8")
_X86 = ("x86_64", "amd64", "i386", "i686")


def count_usable_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def find_version(package: str) -> str | None:
    """Find the version of an installed package; None if there is none of this name."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def read_cpu_flags() -> list[str]:
    """List all instruction sets of the processor, as Linux names them; none on other systems."""
    cpu = _read_fields("/proc/cpuinfo")
    return (cpu.get("flags") or cpu.get("Features") or "").split()


def sums_saturate() -> bool:
    """Tell whether products of uint8 and int8 are added up in 16 bits here, in pairs.

    So x86 does without the instructions of ``INT8_FLAGS`` (by ``vpmaddubsw``). Two products of 255
    and 127 are beyond the largest number of 16 bits, which takes their place; two of 255 and 64
    are not. Where the instructions are unknown, they are taken to be missing.
    """
    return platform.machine().lower() in _X86 and not set(INT8_FLAGS) & set(read_cpu_flags())


def multiplies_bf16_slowly() -> bool:
    """Tell whether this CPU multiplies bf16 more slowly than float32, though it can.

    Intel's AVX-512 does: half as many products a second by ``vdpbf16ps`` as by float32's multiply
    and add (docs/precision.md shows a measurement). AMD's does not, nor do AMX's tiles.
    """
    flags = read_cpu_flags()
    vendor = _read_fields("/proc/cpuinfo").get("vendor_id")
    return vendor == "GenuineIntel" and "avx512_bf16" in flags and "amx_bf16" not in flags


def describe_machine() -> dict[str, Any]:
    """Describe this machine as JSON values; None for unknown ones."""
    cpu = _read_fields("/proc/cpuinfo")
    memory = _read_fields("/proc/meminfo")
    flags = read_cpu_flags()
    return {
        "system": platform.platform(),
        "architecture": platform.machine(),
        "cpu": cpu.get("model name") or platform.processor() or None,
        "cpu_flags": [flag for flag in CPU_FLAGS if flag in flags] if flags else None,
        "cores": os.cpu_count(),
        "usable_cores": count_usable_cores(),
        "memory": {
            "total": _read_kilobytes(memory["MemTotal"]),
            "available": _read_kilobytes(memory["MemAvailable"]),
        }
        if {"MemTotal", "MemAvailable"} <= set(memory)
        else None,
    }


def _read_fields(file: str) -> dict[str, str]:
    """Read the first value of each field of a file of Linux's /proc; none on other systems."""
    fields: dict[str, str] = {}
    try:
        lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return fields
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields


def _read_kilobytes(text: str) -> int:
    return int(text.split()[0]) * 1024
