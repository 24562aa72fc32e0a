"""Digests of weights are remembered for as long as nothing of them can have changed."""

import os
import shutil
import time
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
from file_powers import file_size_limit
from safetensors.numpy import save_file

from fastdeploy_diffusion.checkpoints import TensorSource
from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.tensor_source import TensorView
from fastdeploy_diffusion.predictors import digest_memo
from fastdeploy_diffusion.predictors.digest_memo import recall_digest
from fastdeploy_diffusion.runtime.cache import DIGESTS


@pytest.fixture
def weights(tmp_path):
    file = tmp_path / "weights.safetensors"
    names = ("first", "second")
    save_file({name: np.arange(16, dtype=np.float32).reshape(4, 4) for name in names}, file)
    return file


def open_source(path, **changes):
    view = TensorView(SafetensorsFile(path), "first")
    return TensorSource("weights", {"weight": replace(view, **changes)})


@pytest.fixture
def recall(tmp_path, monkeypatch):
    """Gives how often the weights were read for their digest, at a time after now."""

    def recall_later(source, seconds):
        read = []
        digest, now = TensorSource.digest, time.time_ns()
        with monkeypatch.context() as change:
            change.setattr(TensorSource, "digest", lambda self: (read.append(1), digest(self))[1])
            change.setattr(digest_memo.time, "time_ns", lambda: now + int(seconds * 1e9))
            assert recall_digest(source, tmp_path / "cache") == digest(source)
        return len(read)

    return recall_later


def test_what_was_changed_just_now_is_read_again(weights, recall, tmp_path):
    source = open_source(weights)
    assert [recall(source, 0), recall(source, 1.5)] == [1, 1]
    assert not (tmp_path / "cache").exists()
    assert [recall(source, 2.5), recall(source, 2.5), recall(source, 0)] == [1, 0, 0]


def test_a_damaged_note_is_no_digest(weights, recall, tmp_path):
    source = open_source(weights)
    recall(source, 2.5)
    (note,) = (tmp_path / "cache" / DIGESTS).iterdir()
    note.write_text("12ab")
    assert [recall(source, 2.5), recall(source, 2.5)] == [1, 0]


def test_a_full_disk_keeps_no_note_and_no_half_of_one(weights, recall, tmp_path):
    with file_size_limit(10):
        assert [recall(open_source(weights), 2.5) for _ in range(2)] == [1, 1]
    assert list((tmp_path / "cache" / DIGESTS).iterdir()) == []


def test_any_change_of_the_file_is_read(weights, recall, tmp_path):
    def write_more():
        save_file({name: np.ones((4, 4), np.float32) for name in ("first", "third")}, weights)

    def replace_by_its_copy():
        os.replace(shutil.copy2(weights, tmp_path / "copy"), weights)

    def touch():
        os.utime(weights, (1, 1))

    def change_its_mode():
        weights.chmod(0o600)

    def move():
        return weights.rename(tmp_path / "moved.safetensors")

    assert [recall(open_source(weights), 2.5), recall(open_source(weights), 2.5)] == [1, 0]
    for change in (write_more, replace_by_its_copy, touch, change_its_mode, move):
        source = open_source(change() or weights)
        assert [recall(source, 2.5), recall(source, 2.5)] == [1, 0], change


@pytest.mark.parametrize("name", ["st_size", "st_ino", "st_dev", "st_mtime_ns", "st_ctime_ns"])
def test_each_number_of_a_file_alone_is_seen(weights, name):
    file = SafetensorsFile(weights)
    source = TensorSource("weights", {"weight": TensorView(file, "first")})
    before = source.describe()
    numbers = {each: getattr(file.status, each) for each in dir(file.status) if each[:3] == "st_"}
    file.status = SimpleNamespace(**{**numbers, name: numbers[name] + 1})
    after = source.describe()
    assert after["views"] == before["views"]
    assert after["files"] != before["files"]


def test_any_other_view_of_the_file_is_read(weights, recall):
    changes = {
        "file": None,  # see above
        "stored_name": "second",
        "slices": (1,),
        "parts": 2,
        "transposed": True,
        "squeezed": True,
    }
    # What is new has no case yet.
    assert {each.name for each in fields(TensorView)} == changes.keys()
    del changes["file"]
    assert recall(open_source(weights), 2.5) == 1
    for name, value in changes.items():
        given = {name: value, **({"parts": 4} if name == "slices" else {})}
        source = open_source(weights, **given)
        assert [recall(source, 2.5), recall(source, 2.5)] == [1, 0], name
    other = TensorSource("weights", {"renamed": TensorView(SafetensorsFile(weights), "first")})
    assert recall(other, 2.5) == 1
