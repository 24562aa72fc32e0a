"""A memo of files whose checksums were compared, so that gigabytes are not read at each start.

A file is known until its size, place or times change, and until the machine starts again: from then
on it is read from the disk afresh, where a write may have been lost.
"""

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fastdeploy_diffusion.whole_file import write_whole

# A file that was changed this short a time ago could change again and look the same.
_SETTLED_NANOSECONDS = 2 * 10**9
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class CheckedFiles:
    """The files of one memo, by their absolute paths.

    Args:
        memo: The file that it is kept in; if it cannot be read or written, no file is known.
    """

    def __init__(self, memo: Path) -> None:
        self._memo = memo
        self._boot = _read_boot()
        self._known = _read_memo(memo, self._boot) if self._boot else {}

    def list_unknown(self, paths: Iterable[Path]) -> list[Path]:
        """List the files to compare: those that changed since they were noted, or never were."""
        return [path for path in paths if self._known.get(_name(path)) != _identify(path)]

    def note(self, paths: Iterable[Path]) -> None:
        """Note files that were compared, or written with their checksums, and forget lost ones."""
        now, found = time.time_ns(), {}
        for path in paths:
            identity = _identify(path)
            if identity and now - max(identity[3:]) > _SETTLED_NANOSECONDS:
                found[_name(path)] = identity
        if not self._boot or found.items() <= self._known.items():
            return
        known = {**_read_memo(self._memo, self._boot), **found}  # other processes note theirs
        self._known = {name: each for name, each in known.items() if os.path.exists(name)}
        with suppress(OSError):
            self._memo.parent.mkdir(parents=True, exist_ok=True)
            content = {"boot": self._boot, "files": self._known}
            write_whole(self._memo, json.dumps(content).encode())


def _read_boot() -> str:
    """Identify the time since the machine started; empty where the system does not tell."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _read_memo(memo: Path, boot: str) -> dict[str, list[int]]:
    with suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(memo.read_text(encoding="utf-8"))
        if kept["boot"] == boot:
            return dict(kept["files"])
    return {}


def _name(path: Path) -> str:
    return str(path.absolute())


def _identify(path: Path) -> list[int]:
    """Identify the content of a file by size, place and times; empty if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return []
    place = [found.st_size, found.st_ino, found.st_dev]
    return [*place, found.st_mtime_ns, found.st_ctime_ns]
