"""What a test needs of the system: root without its powers over files, small disks, small files."""

import ctypes
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: sets of 64 bits, in two halves
_OVER_FILES = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Half(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))


@contextmanager
def plain_user() -> Iterator[None]:
    """Let the mode of files bind this thread, even root's, and threads that it starts."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, halves = _Header(_VERSION, 0), (_Half * 2)()

    def call(function):
        if function(ctypes.byref(header), ctypes.byref(halves)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    call(libc.capget)
    before = halves[0].effective
    halves[0].effective = before & ~_OVER_FILES
    call(libc.capset)
    try:
        yield
    finally:
        halves[0].effective = before
        call(libc.capset)


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes: to whoever writes, that is a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount an empty disk of so many bytes on a folder; skips the test where nobody may."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        # Lazily: an engine may have mapped a file of it.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
