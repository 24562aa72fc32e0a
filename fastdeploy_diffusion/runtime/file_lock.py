"""Locks among processes and threads: many read at a time, or one writes alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def hold_file(path: Path, *, is_shared: bool = False, waits: bool = True) -> Iterator[bool]:
    """Hold a lock file until the block ends; the system releases it when the process ends.

    The file itself stays, empty: were it removed, one process would wait for a file that another
    no longer sees. Where there is no ``fcntl``, readers take turns, too.

    Args:
        path: The lock file, made if missing; its folder must exist.
        is_shared: Whether others may read meanwhile.

    Yields:
        Whether it is held; always, where the caller waits.

    Raises:
        OSError: The file cannot be opened or locked.
    """
    if fcntl is None:
        with _hold_alone(path, waits) as is_held:
            yield is_held
        return
    # A shared lock needs read access only, so that a read-only folder will do.
    file = os.open(path, os.O_CREAT | (os.O_RDONLY if is_shared else os.O_RDWR), 0o666)
    try:
        yield _lock(file, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX, waits)
    finally:
        # Closing alone would leave it with a forked process that has inherited the file.
        fcntl.flock(file, fcntl.LOCK_UN)
        os.close(file)


def _lock(file: int, kind: int, waits: bool) -> bool:
    try:
        fcntl.flock(file, kind if waits else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _hold_alone(path: Path, waits: bool) -> Iterator[bool]:
    import filelock

    lock = filelock.FileLock(path, timeout=-1 if waits else 0, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
