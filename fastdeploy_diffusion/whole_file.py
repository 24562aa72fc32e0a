"""Files that appear whole or not at all."""

import secrets
from contextlib import suppress
from pathlib import Path

UNFINISHED = ".unfinished"
"""The suffix of a file that is being written, or was when its process was killed."""


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write or replace a file atomically; its folder must exist.

    Raises:
        OSError: It cannot be written; an earlier file is unchanged.
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
