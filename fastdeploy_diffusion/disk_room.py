"""Failures for want of disk space, distinguished from others."""

import errno
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fastdeploy_diffusion.errors import DiskFullError, ResourceError

_SHORTAGES: Mapping[int, str] = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "no disk quota left",
    errno.EFBIG: "no file may be as large as it has to be",
}
# Less room than this counts as none: a runtime that failed may have removed its files.
_PROBE_BYTES = 1 << 20
_FIX_TEMPORARY = (
    "make room there, set TMPDIR to another folder, or choose an engine that keeps no weights in "
    "its builds: openvino or onnxruntime"
)


@contextmanager
def explain_full_disk(what: str, folder: Path, fix: str = "make room there") -> Iterator[None]:
    """Turn failures of the body into a `DiskFullError` if the folder's disk is full.

    Some runtimes raise nothing when a disk is full, and leave half a file that fails later and for
    another reason: so the disk is checked at any failure.

    Args:
        what: The use of the room, for the message.

    Raises:
        DiskFullError: Something failed, and there is no room.
    """
    with _explain(what, folder, fix):
        try:
            yield
        except DiskFullError:
            raise
        except Exception as error:
            if shortage := describe_shortage(error):
                raise DiskFullError(what, folder, shortage, fix=fix) from error
            raise


@contextmanager
def make_temporary_folder(what: str) -> Iterator[Path]:
    """Lend an empty folder for temporary files until the block ends.

    Args:
        what: Its use, for messages.

    Raises:
        DiskFullError: Something failed, and there is no room.
        ResourceError: There is no place for temporary files.
    """
    try:
        place = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise ResourceError(f"{what}: {error.strerror}", fix=_FIX_TEMPORARY) from error
    # Inside, the room is checked before the files are removed. An error about a full disk may
    # be about another folder, which the body writes to, too.
    with (
        _explain(what, place, _FIX_TEMPORARY),
        tempfile.TemporaryDirectory(prefix="fastdeploy-diffusion-") as folder,
        _explain(what, place, _FIX_TEMPORARY),
    ):
        yield Path(folder)


@contextmanager
def _explain(what: str, folder: Path, fix: str) -> Iterator[None]:
    """Check the room of a folder at a failure."""
    try:
        yield
    except DiskFullError as error:
        if folder not in error.folder.parents:
            raise
        raise DiskFullError(what, folder, error.shortage, fix=fix) from error
    except Exception as error:
        if shortage := find_shortage(folder):
            raise DiskFullError(what, folder, shortage, fix=fix) from error
        raise


def describe_shortage(error: BaseException | None) -> str:
    """Return what an error, or its cause, tells about disk space; empty if nothing."""
    while error is not None:
        if isinstance(error, OSError) and (shortage := _SHORTAGES.get(error.errno or 0)):
            return shortage
        error = error.__cause__ or error.__context__
    return ""


def find_shortage(folder: Path) -> str:
    """Return why a folder is full; empty if it is not, or if it cannot be written at all."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return describe_shortage(error)
    return ""
