"""Files that appear whole or not at all."""

import secrets
from contextlib import suppress
from pathlib import Path

UNFINISHED = ".unfinished"
"""The suffix of a file that is being written, or was when its process was killed."""


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file, or replace it: readers see what was there before, or all of this.

    Args:
        path: The file; its folder is there.
        content: All of it.

    Raises:
        OSError: It cannot be written; what was there before is unchanged.
    """
    # Beside it: a rename is atomic only within a file system.
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise
