"""Files of a model, which may be missing, damaged, or no files at all."""

import errno
import os
import stat
from pathlib import Path

from fastdeploy_diffusion.errors import CheckpointError

# The largest tokenizers of the published models have half of this.
MAX_BYTES = 64 * 2**20

_COPY_FIX = "copy the model with `cp -rL FROM TO`, or download it with --local-dir"


def find_file(path: Path) -> bool:
    """Tell whether there is a file at a path.

    Raises:
        CheckpointError: Something is there that cannot be read as a file: a link that leads
            nowhere, a folder, a device, a name too long.
    """
    mode = _look_at(path)
    if mode is None:
        return False
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
        raise CheckpointError(f"{path} is {kind}, not a file", allowed="a file")
    return True


def find_folder(path: Path) -> bool:
    """Tell whether there is a folder at a path.

    Raises:
        CheckpointError: Something is there that cannot be read as a folder.
    """
    mode = _look_at(path)
    if mode is None:
        return False
    if not stat.S_ISDIR(mode):
        raise CheckpointError(f"{path} is a file, not a folder", allowed="a folder")
    return True


def _look_at(path: Path) -> int | None:
    """Stat a path for its mode; None if nothing is there."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        check_links(path)
        return None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        check_links(path)
        raise refuse_path(path, error) from None


def check_links(path: Path) -> None:
    """Refuse a path with a broken link in it.

    Copies of a folder may have links without their targets, such as a hub's cache without its
    ``blobs``.

    Raises:
        CheckpointError: Names the link, where it leads, and how to copy the files.
    """
    for part in reversed((path, *path.parents)):
        try:
            target = os.readlink(part)
        except (OSError, ValueError):  # no link, or nothing there
            continue
        try:
            part.stat()
        except FileNotFoundError:
            raise CheckpointError(
                f"{part} is a link to {target}, which does not exist", fix=_COPY_FIX
            ) from None
        except OSError as error:
            if error.errno != errno.ELOOP:
                continue
            raise CheckpointError(
                f"{part} is a link to {target}, which leads back to itself", fix=_COPY_FIX
            ) from None


def refuse_path(path: Path, error: Exception) -> CheckpointError:
    """Make the error for a path that cannot be inspected; a long one is cut."""
    shown = str(path)
    shown = shown if len(shown) <= 200 else f"{shown[:100]}…{shown[-20:]}"
    reason = getattr(error, "strerror", None) or str(error)
    return CheckpointError(f"{shown!r} cannot be opened: {reason}", fix="correct the path")


def read_bytes(path: Path) -> bytes:
    """Read a whole small file.

    Raises:
        CheckpointError: It is missing, unreadable, no file, or larger than ``MAX_BYTES``.
    """
    if not find_file(path):
        raise CheckpointError(
            f"{path} is missing", fix="download or export the whole checkpoint folder again"
        )
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise refuse_path(path, error) from error
    if len(content) > MAX_BYTES:
        raise CheckpointError(
            f"{path} is too large for a file of its kind", allowed=f"at most {MAX_BYTES:,} bytes"
        )
    return content


def read_text(path: Path) -> str:
    """Read a whole small file of UTF-8 text.

    Raises:
        CheckpointError: As ``read_bytes``, or the file is not UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise damage(path, f"it is not UTF-8 text ({error})") from None


def damage(path: Path, problem: str) -> CheckpointError:
    """Make the error for a file that is not as published."""
    return CheckpointError(f"{path} is damaged: {problem}", fix="download the file again")
