"""The store of weights: each once, whole or made again, and gone when no build refers to it."""

import errno
import json
import os
import time
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
from safetensors.numpy import save_file

from fastdeploy_diffusion.checkpoints import TensorSource
from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.tensor_source import TensorView
from fastdeploy_diffusion.mapped_file import lies_in_file
from fastdeploy_diffusion.runtime import checked_files, weight_store
from fastdeploy_diffusion.runtime.recipe import Derivation, Weight, derive, register_op
from fastdeploy_diffusion.runtime.weight_store import (
    WeightStore,
    digest_weight,
    find_damages,
    measure_weights,
    sweep,
)

MADE: list[str] = []
SIDE = 256  # a tensor of this side takes 128 KiB in half precision
STACKED = Derivation(("q", "k"), "concatenate")


@register_op("negate")
def negate(array):
    MADE.append("negate")
    return -array


NEGATED = Derivation(("q",), "negate")
WEIGHTS = {
    "plain": Weight("q"),
    "stacked": Weight(STACKED),
    "negated": Weight(NEGATED),
    "half": Weight(NEGATED, "float16"),
    "small": Weight(Derivation(("bias",), "negate")),
}


@pytest.fixture(autouse=True)
def forget_what_was_made():
    MADE.clear()


def open_source(folder, dtype="float32", scale=1.0):
    random = np.random.default_rng(0)
    tensors = {name: random.standard_normal((SIDE, SIDE)).astype(dtype) for name in ("k", "q")}
    tensors["q"] *= np.asarray(scale, dtype)
    tensors["bias"] = np.ones(4, dtype)
    path = folder / f"{dtype}-{scale}.safetensors"
    save_file(tensors, path)
    file = SafetensorsFile(path)
    return TensorSource("checkpoint", {name: TensorView(file, name) for name in tensors})


def open_store(folder, build="first"):
    return WeightStore(folder / "weights", build, nullcontext)


def count_files(folder):
    return len(list((folder / "weights").glob("*.npy")))


def assert_bound(bound, source):
    assert (bound.unkept, bound.shortage) == (0, "")
    assert list(bound.arrays) == list(WEIGHTS)
    for name, array in bound.arrays.items():
        wanted = derive(WEIGHTS[name], source)
        assert array.dtype == wanted.dtype
        np.testing.assert_array_equal(array, wanted)


def test_what_is_kept_is_made_once_for_all_builds(tmp_path):
    source = open_source(tmp_path)
    assert_bound(open_store(tmp_path).bind(WEIGHTS, source, is_mapped=True), source)
    MADE.clear()
    bound = open_store(tmp_path, "second").bind(WEIGHTS, source, is_mapped=True)
    assert MADE == ["negate"]  # the small one, which has no file
    assert_bound(bound, source)
    # Two of them: the plain one lies in the checkpoint.
    assert count_files(tmp_path) == 3
    assert {name for name, each in bound.arrays.items() if lies_in_file(each)} == (
        WEIGHTS.keys() - {"small"}
    )
    for build in ("first", "second"):
        assert measure_weights(tmp_path / "weights", build) == measure_weights(tmp_path / "weights")


def test_what_is_only_moved_is_kept_where_it_has_to_be_mapped(tmp_path):
    source = open_source(tmp_path, "float16")
    bound = open_store(tmp_path).bind(WEIGHTS, source)
    assert count_files(tmp_path) == 2
    assert_bound(bound, source)
    assert_bound(open_store(tmp_path).bind(WEIGHTS, source, is_mapped=True), source)
    assert count_files(tmp_path) == 4  # the stacked one, and the plain one as float32


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Weight(NEGATED), Weight(NEGATED, "bfloat16")),
        (Weight(NEGATED), Weight(STACKED)),
        (Weight(STACKED), Weight(Derivation(("k", "q"), "concatenate"))),
        (Weight(NEGATED), Weight(Derivation(("k",), "negate"))),
        (
            Weight(Derivation(("q",), "tile", {"times": 1})),
            Weight(Derivation(("q",), "tile", {"times": 2})),
        ),
        (
            Weight(Derivation((STACKED, "q"), "concatenate")),
            Weight(Derivation(("q", STACKED), "concatenate")),
        ),
    ],
)
def test_whatever_changes_the_numbers_is_another_weight(one, other, tmp_path):
    source = open_source(tmp_path)
    assert digest_weight(one, source) == digest_weight(one, source)
    assert digest_weight(one, source) != digest_weight(other, source)


def test_other_tensors_or_other_code_are_another_weight(tmp_path, monkeypatch):
    source, other = open_source(tmp_path), open_source(tmp_path, scale=2.0)
    weight = Weight(NEGATED)
    assert digest_weight(weight, source) != digest_weight(weight, other)
    assert digest_weight(Weight("k"), source) == digest_weight(Weight("k"), other)
    before = digest_weight(weight, source)
    (tmp_path / "other.py").write_text("def negate(array):\n    return 0 - array\n")
    monkeypatch.setattr("inspect.getsourcefile", lambda run: tmp_path / "other.py")
    assert digest_weight(weight, source) != before


def test_a_damaged_weight_is_told_and_made_again(tmp_path):
    source = open_source(tmp_path)
    open_store(tmp_path).bind(WEIGHTS, source, is_mapped=True)
    folder = tmp_path / "weights"
    spoilt = sorted(folder.glob("*.npy"))[1]
    content = bytearray(spoilt.read_bytes())
    content[-1] ^= 1
    spoilt.write_bytes(content)
    assert find_damages(folder) == {spoilt.name: "it has changed"}
    assert_bound(open_store(tmp_path).bind(WEIGHTS, source, is_mapped=True), source)
    assert (find_damages(folder), count_files(tmp_path)) == ({}, 3)


def test_without_room_nothing_is_left_and_every_weight_is_there(tmp_path, monkeypatch):
    source, save, saved = open_source(tmp_path), np.save, []

    def save_two(file, array, **options):
        if len(saved) == 2:
            file.write(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        saved.append(array)
        save(file, array, **options)

    monkeypatch.setattr(np, "save", save_two)
    bound = open_store(tmp_path).bind(WEIGHTS, source, is_mapped=True)
    assert bound.shortage == f"no space left in {tmp_path / 'weights'}"
    assert bound.unkept >= (4 + 2 + 4 * 2) * SIDE * SIDE
    for name, array in bound.arrays.items():
        np.testing.assert_array_equal(array, derive(WEIGHTS[name], source))
    assert [file for file in (tmp_path / "weights").rglob("*") if file.is_file()] == []


def test_what_no_build_refers_to_is_swept(tmp_path):
    source, other = open_source(tmp_path), open_source(tmp_path, scale=2.0)
    folder = tmp_path / "weights"
    one = open_store(tmp_path, "first").bind(WEIGHTS, source, is_mapped=True)
    open_store(tmp_path, "second").bind(WEIGHTS, other, is_mapped=True)
    (folder / f"{'0' * 64}.abcd.unfinished").write_text("of a killed process")
    assert count_files(tmp_path) == 6
    sweep(folder, {"first", "second"}.__contains__)
    assert (count_files(tmp_path), len(list(folder.glob("*.unfinished")))) == (6, 0)
    sweep(folder, {"second"}.__contains__)
    assert count_files(tmp_path) == 3
    assert_bound(one, source)  # what is mapped stays with whoever has it
    assert measure_weights(folder, "first") == {}
    sweep(folder, set().__contains__)
    assert [file for file in folder.rglob("*") if file.is_file()] == []


def test_a_build_may_serve_many_checkpoints(tmp_path):
    folder = tmp_path / "weights"
    for scale in (1.0, 2.0):
        source = open_source(tmp_path, scale=scale)
        assert_bound(open_store(tmp_path).bind(WEIGHTS, source, is_mapped=True), source)
    sweep(folder, {"first"}.__contains__)
    assert count_files(tmp_path) == len(measure_weights(folder, "first")) == 6


def test_a_list_that_cannot_be_read_refers_to_nothing(tmp_path):
    source = open_source(tmp_path)
    open_store(tmp_path).bind(WEIGHTS, source, is_mapped=True)
    (path,) = (tmp_path / "weights/builds").iterdir()
    assert len(json.loads(path.read_text())) == 3
    path.write_text("[")
    sweep(tmp_path / "weights", {"first"}.__contains__)
    assert count_files(tmp_path) == 0
    path.parent.mkdir(exist_ok=True)
    path.write_text("[")
    assert_bound(open_store(tmp_path).bind(WEIGHTS, source, is_mapped=True), source)
    assert len(measure_weights(tmp_path / "weights", "first")) == 3


def test_weights_are_written_while_the_lock_is_held(tmp_path):
    held = []

    @contextmanager
    def share():
        held.append(count_files(tmp_path))
        yield
        held.append(count_files(tmp_path))

    store = WeightStore(tmp_path / "weights", "first", share)
    store.bind(WEIGHTS, open_source(tmp_path), is_mapped=True)
    assert held == [0, 3]
    assert len(list((tmp_path / "weights/builds").iterdir())) == 1


def test_a_weight_is_compared_once_until_it_changes(tmp_path, monkeypatch):
    read, find_damage = [], weight_store.find_damage

    def count_and_find(path):
        read.append(path)
        return find_damage(path)

    monkeypatch.setattr(weight_store, "find_damage", count_and_find)
    source, now = open_source(tmp_path), time.time_ns()
    open_store(tmp_path).bind(WEIGHTS, source, is_mapped=True)
    monkeypatch.setattr(checked_files.time, "time_ns", lambda: now + 3 * 10**9)
    for _ in range(3):
        assert_bound(open_store(tmp_path).bind(WEIGHTS, source, is_mapped=True), source)
    assert len(read) == count_files(tmp_path)
    spoilt = read[0]
    spoilt.write_bytes(bytes(spoilt.stat().st_size))
    read.clear()
    assert_bound(open_store(tmp_path).bind(WEIGHTS, source, is_mapped=True), source)
    assert read == [spoilt]
    sweep(tmp_path / "weights", lambda build: False)
    assert not (tmp_path / "weights").exists()
