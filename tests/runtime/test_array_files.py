"""Arrays on disk: whole or made again, and no more of them than there is room for."""

import itertools
import os
import threading
import warnings

import numpy as np
import pytest
from file_powers import file_size_limit

from fastdeploy_diffusion.runtime.array_files import ArrayFiles
from fastdeploy_diffusion.runtime.cache import CacheWarning


def make(value, floats=256):
    return {"values": np.full((1, floats), value, np.float32)}


def test_what_is_found_is_what_was_kept(tmp_path):
    files = ArrayFiles(tmp_path / "new", limit=10**6)
    assert files.find("a") is None
    transposed = np.arange(6, dtype=np.float32).reshape(2, 3).T
    files.keep("a", {"one": transposed, "two": np.float32([7])}, "a note")
    arrays, note = files.find("a")
    assert note == "a note"
    np.testing.assert_array_equal(arrays["one"], transposed)
    np.testing.assert_array_equal(arrays["two"], [7])
    with pytest.raises(ValueError, match="read-only"):
        arrays["one"][0] = 0


def test_files_used_longest_ago_go_first(tmp_path):
    files = ArrayFiles(tmp_path, limit=4000)  # three files of 1024 bytes and their headers
    now = itertools.count(1)

    def touch(name):
        moment = next(now)
        os.utime(tmp_path / f"{name}.safetensors", (moment, moment))

    for name in "abc":
        files.keep(name, make(ord(name)))
        touch(name)
    touch("a")
    files.keep("d", make(4))
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["a", "c", "d"]
    assert files.measure()[0] == 3
    assert files.find("a")[0]["values"][0, 0] == ord("a")
    assert files.find("b") is None
    files.keep("large", make(1, floats=2000))
    assert [path.stem for path in tmp_path.iterdir()] == ["large"]


def test_a_file_under_another_name_is_damaged(tmp_path):
    files = ArrayFiles(tmp_path, limit=4000, loss="they are made again")
    files.keep("a", make(1))
    (tmp_path / "a.safetensors").rename(tmp_path / "b.safetensors")
    assert files.find_damage() == {"b.safetensors": "its content has changed"}
    with pytest.warns(CacheWarning, match=r"^they are made again, .*its content has changed"):
        assert files.find("b") is None


def test_what_does_not_fit_on_the_disk_leaves_nothing(tmp_path):
    files = ArrayFiles(tmp_path, limit=10**6)
    with file_size_limit(1024), pytest.raises(OSError, match="File too large"):
        files.keep("a", make(1, floats=4096))
    assert list(tmp_path.iterdir()) == []


def test_who_reads_while_others_write_finds_a_whole_file(tmp_path):
    files = ArrayFiles(tmp_path, limit=10**7)
    files.keep("a", make(0, floats=50_000))

    def write(value):
        for _ in range(20):
            files.keep("a", make(value, floats=50_000))

    writers = [threading.Thread(target=write, args=(value,)) for value in (1, 2)]
    for each in writers:
        each.start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        while any(each.is_alive() for each in writers):
            (values,) = files.find("a")[0]["values"]
            assert len(set(values)) == 1
    for each in writers:
        each.join()
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
