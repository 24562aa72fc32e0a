"""What fails where a disk is full, told apart from what fails otherwise."""

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
# Less room than this is none: a runtime that finds too little may have removed what it wrote.
_PROBE_BYTES = 1 << 20
_FIX_TEMPORARY = (
    "make room there, set TMPDIR to another folder, or choose an engine that keeps no weights in "
    "its builds: openvino or onnxruntime"
)


@contextmanager
def explain_full_disk(what: str, folder: Path, fix: str = "make room there") -> Iterator[None]:
    """Blame the disk for what fails while it is full, and not the network or the engine.

    Some runtimes raise nothing when a disk is full, and leave half a file that fails later and for
    another reason: so whatever fails, the folder is asked for room, too.

    Args:
        what: What needs the room, for the message.
        folder: Where files are written.
        fix: What to do about it.

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
        what: What needs it, for messages.

    Raises:
        DiskFullError: Something failed, and there is no room.
        ResourceError: There is no place for temporary files.
    """
    try:
        place = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise ResourceError(f"{what}: {error.strerror}", fix=_FIX_TEMPORARY) from error
    # Inside, it is asked for room before what was written is removed. That an error tells of no
    # room says nothing of this folder: who has it may write elsewhere, too.
    with (
        _explain(what, place, _FIX_TEMPORARY),
        tempfile.TemporaryDirectory(prefix="fastdeploy-diffusion-") as folder,
        _explain(what, place, _FIX_TEMPORARY),
    ):
        yield Path(folder)


@contextmanager
def _explain(what: str, folder: Path, fix: str) -> Iterator[None]:
    """Ask a folder for room when something fails."""
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
    """Say what an error, or what has caused it, tells of room on a disk; nothing if it does not."""
    while error is not None:
        if isinstance(error, OSError) and (shortage := _SHORTAGES.get(error.errno or 0)):
            return shortage
        error = error.__cause__ or error.__context__
    return ""


def find_shortage(folder: Path) -> str:
    """Say why a folder takes no more; nothing if it does, or if it cannot be written at all."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return describe_shortage(error)
    return ""
