"""What fails on a full disk is told apart from what fails otherwise."""

import errno
import tempfile
from pathlib import Path

import pytest
from file_powers import file_size_limit

from fastdeploy_diffusion.disk_room import (
    explain_full_disk,
    find_shortage,
    make_temporary_folder,
)
from fastdeploy_diffusion.errors import DiskFullError, EngineError, ResourceError


def test_a_folder_is_asked_for_room(tmp_path):
    assert find_shortage(tmp_path) == ""
    with file_size_limit(1000):
        assert find_shortage(tmp_path) == "no file may be as large as it has to be"
        # That is another trouble.
        assert find_shortage(tmp_path / "none") == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "no space left"), (errno.EDQUOT, "no disk quota left")]
)
def test_an_error_tells_of_it_however_deep(tmp_path, number, words):
    error = EngineError("the network returns 0 tensors")
    error.__cause__ = OSError(number, "as the system says it")
    with pytest.raises(DiskFullError) as caught, explain_full_disk("vae", tmp_path, "make room"):
        raise error
    assert str(caught.value) == f"vae: {words} in {tmp_path}\n  fix: make room"
    assert caught.value.folder == tmp_path


def test_what_fails_for_no_reason_is_blamed_on_a_full_disk_only(tmp_path):
    error = EngineError("the network returns 0 tensors")
    with pytest.raises(EngineError) as caught, explain_full_disk("vae", tmp_path):
        raise error
    assert caught.value is error
    with (
        file_size_limit(1000),
        pytest.raises(DiskFullError) as full,
        explain_full_disk("vae", tmp_path),
    ):
        raise error
    assert full.value.__cause__ is error


def test_who_knows_the_folder_better_says_what_to_do(tmp_path):
    inner, other = tmp_path / "cache" / "a.staged", tmp_path / "b"
    with (
        pytest.raises(DiskFullError, match="set TMPDIR") as caught,
        explain_full_disk("vae", tmp_path / "cache", "set TMPDIR"),
    ):
        raise DiskFullError("vae", inner, "no space left")
    assert caught.value.folder == tmp_path / "cache"
    with pytest.raises(DiskFullError) as caught, explain_full_disk("vae", other, "set TMPDIR"):
        raise DiskFullError("vae", inner, "no space left")
    assert caught.value.folder == inner


def test_a_temporary_folder_is_there_until_the_end():
    with make_temporary_folder("vae") as folder:
        (folder / "file").write_bytes(b"")
    assert not folder.exists()


def test_no_room_for_temporary_files_names_their_place():
    with (
        file_size_limit(1000),
        pytest.raises(DiskFullError, match="set TMPDIR") as caught,
        make_temporary_folder("vae"),
    ):
        raise ValueError("an empty file")
    assert caught.value.folder == Path(tempfile.gettempdir())


def test_an_error_in_another_folder_does_not_blame_that_of_temporary_files():
    error = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space left") as caught, make_temporary_folder("vae"):
        raise error
    assert caught.value is error


def test_no_place_for_temporary_files_is_explained(monkeypatch):
    def find_none():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", find_none)
    with pytest.raises(ResourceError, match="vae: No usable temporary") as caught:
        make_temporary_folder("vae").__enter__()
    assert "TMPDIR" in caught.value.fix
