"""Blocks come in turn, whatever they are stored as; what cannot be read is named; threads end."""

import threading

import numpy as np
import pytest
from checkpoint_writers import write_tensors

from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource, TensorView
from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.predictors.weight_stream import BlockWeights, WeightStream
from fastdeploy_diffusion.runtime.recipe import Derivation, register_op

SHAPES = {"linear.weight": (5, 3), "linear.bias": (5,), "norm.weight": (7,)}


def make_source(folder, lists, dtypes=("BF16",)):
    """Store lists of blocks, the types taking turns by block, each in a file of its own."""
    random = np.random.default_rng(0)
    views = {}
    for path, count in lists.items():
        for index in range(count):
            tensors = {
                f"{path}.{index}.{name}": random.standard_normal(shape)
                for name, shape in SHAPES.items()
            }
            dtype = dtypes[index % len(dtypes)]
            file = SafetensorsFile(write_tensors(folder / f"{path}.{index}", tensors, dtype))
            views |= {name: TensorView(file, name) for name in tensors}
    return TensorSource("checkpoint", views)


@register_op("double")
def double(weight):
    return 2 * weight


def describe(source, path, count, derivations=()):
    shapes = {f"{path}.0.{name}": shape for name, shape in SHAPES.items()}
    return BlockWeights(source, path, count, shapes, dict(derivations))


def assert_is_block(arrays, source, path, index):
    assert list(arrays) == [f"{path}.0.{name}" for name in SHAPES]
    for name, array in zip(SHAPES, arrays.values(), strict=True):
        wanted = source.read(f"{path}.{index}.{name}")
        np.testing.assert_array_equal(array.astype(np.float32), wanted)


@pytest.mark.parametrize(
    ("dtypes", "given"),
    [
        (("BF16",), "bfloat16"),
        (("F16",), "float16"),
        (("F32",), "float32"),
        (("F64",), "float32"),
        (("BF16", "F32"), "float32"),
    ],
)
def test_blocks_come_in_turn_round_after_round(dtypes, given, tmp_path):
    source = make_source(tmp_path, {"double": 2, "single": 3}, dtypes)
    kinds = describe(source, "double", 2), describe(source, "single", 3)
    assert {spec.dtype for kind in kinds for spec in kind.specs} == {given}
    stream = WeightStream(kinds)
    for _ in range(3):
        stream.restart()
        for path, count in (("double", 2), ("single", 3)):
            for index in range(count):
                assert_is_block(stream.take(), source, path, index)
    stream.close()


def test_a_round_that_broke_off_begins_anew(tmp_path):
    source = make_source(tmp_path, {"single": 4})
    stream = WeightStream([describe(source, "single", 4)])
    for taken in range(4):
        stream.restart()
        for index in range(taken):
            assert_is_block(stream.take(), source, "single", index)
    stream.close()


def test_weights_that_passes_made_are_made_of_each_block(tmp_path):
    source = make_source(tmp_path, {"single": 2})
    doubled = Derivation(("single.0.linear.weight",), "double")
    moved = Derivation(("single.0.linear.bias",), "tile", {"times": 1})
    recipe = {"single.0.linear.weight": doubled, "single.0.linear.bias": moved}
    weights = describe(source, "single", 2, recipe)
    assert [spec.dtype for spec in weights.specs] == ["float32", "bfloat16", "bfloat16"]
    for index in range(2):
        given = weights.read_block(index)
        wanted = source.read(f"single.{index}.linear.weight")
        np.testing.assert_array_equal(given["single.0.linear.weight"], 2 * wanted)
        bias = given["single.0.linear.bias"].astype(np.float32)
        np.testing.assert_array_equal(bias, source.read(f"single.{index}.linear.bias"))


def test_a_weight_that_cannot_be_read_is_named_and_the_stream_goes_on_without_it(tmp_path):
    source = make_source(tmp_path, {"single": 3})
    path = tmp_path / "single.2"
    stream = WeightStream([describe(source, "single", 3)])
    hidden = path.rename(tmp_path / "hidden")
    stream.restart()
    stream.take()
    stream.take()
    with pytest.raises(CheckpointError, match=r"single\.2\.linear\.weight .*single\.2 can no"):
        stream.take()
    hidden.rename(path)
    stream.restart()
    for index in range(3):
        assert_is_block(stream.take(), source, "single", index)
    stream.close()


def test_closing_ends_the_thread_in_the_middle_of_a_block(tmp_path, monkeypatch):
    source = make_source(tmp_path, {"single": 3})
    reading, may_go_on = threading.Event(), threading.Event()
    read, names = BlockWeights.read, []

    def read_slowly(self, index, name, out):
        names.append(name)
        reading.set()
        may_go_on.wait(10)
        read(self, index, name, out)

    monkeypatch.setattr(BlockWeights, "read", read_slowly)
    stream = WeightStream([describe(source, "single", 3)])
    stream.restart()
    assert reading.wait(10)
    closing = threading.Thread(target=stream.close)
    closing.start()
    while not stream._is_closing.is_set():
        pass
    may_go_on.set()
    closing.join(10)
    assert not [each for each in threading.enumerate() if each.name.startswith("weight-stream")]
    assert names == ["single.0.linear.weight"]
