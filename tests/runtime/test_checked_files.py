"""Files are compared again as soon as anything of them can have changed."""

import os
import time

import pytest

from fastdeploy_diffusion.runtime import checked_files
from fastdeploy_diffusion.runtime.checked_files import CheckedFiles

pytestmark = pytest.mark.skipif(
    not checked_files._BOOT.exists(), reason="the system does not tell when it started"
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"0123")
    return path


@pytest.fixture
def memo(tmp_path):
    return tmp_path / "notes" / "checked"


@pytest.fixture
def note_later(monkeypatch):
    """Gives a function that notes files at a time after now."""

    def note(memo, paths, seconds):
        now = time.time_ns()
        with monkeypatch.context() as change:
            change.setattr(checked_files.time, "time_ns", lambda: now + int(seconds * 1e9))
            CheckedFiles(memo).note(paths)

    return note


def test_what_was_changed_just_now_is_not_known(file, memo, note_later):
    note_later(memo, [file], 1.5)
    assert CheckedFiles(memo).list_unknown([file]) == [file]
    note_later(memo, [file], 2.5)
    assert CheckedFiles(memo).list_unknown([file]) == []


def write_in_place(path):
    with path.open("r+b") as file:
        file.write(b"9")


def write_with_old_times(path):
    found = path.stat()
    write_in_place(path)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def replace_with_old_times(path):
    found, other = path.stat(), path.with_name("other")
    other.write_bytes(b"4567")
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(path)


def append(path):
    with path.open("ab") as file:
        file.write(b"4")


@pytest.mark.parametrize(
    "change", [write_in_place, write_with_old_times, replace_with_old_times, append, os.unlink]
)
def test_any_change_is_seen(change, file, memo, note_later):
    other = file.with_name("untouched")
    other.write_bytes(b"")
    note_later(memo, [file, other], 2.5)
    change(file)
    assert CheckedFiles(memo).list_unknown([file, other]) == [file]


def test_after_another_start_of_the_machine_nothing_is_known(
    file, memo, note_later, monkeypatch, tmp_path
):
    note_later(memo, [file], 2.5)
    monkeypatch.setattr(checked_files, "_BOOT", tmp_path / "boot")
    for boot in ("another", ""):
        (tmp_path / "boot").write_text(boot)
        assert CheckedFiles(memo).list_unknown([file]) == [file]
    (tmp_path / "boot").unlink()
    note_later(memo, [file], 2.5)
    assert CheckedFiles(memo).list_unknown([file]) == [file]


@pytest.mark.parametrize("content", ["", "12ab", "[]", "{}", '{"boot": 1, "files": [1]}'])
def test_a_damaged_memo_knows_nothing_and_is_replaced(content, file, memo, note_later):
    memo.parent.mkdir()
    memo.write_text(content)
    assert CheckedFiles(memo).list_unknown([file]) == [file]
    note_later(memo, [file], 2.5)
    assert CheckedFiles(memo).list_unknown([file]) == []


def test_processes_add_to_each_other_and_forget_lost_files(file, memo, note_later):
    others = [file.with_name(name) for name in ("second", "third")]
    for path in others:
        path.write_bytes(b"")
    mine, theirs = CheckedFiles(memo), others[0]
    note_later(memo, [theirs], 2.5)
    assert mine.list_unknown([theirs]) == [theirs]
    note_later(memo, [file, others[1]], 2.5)
    assert CheckedFiles(memo).list_unknown([file, *others]) == []
    others[1].unlink()
    file.write_bytes(b"4567")
    note_later(memo, [file], 2.5)
    assert str(others[1]) not in memo.read_text()
