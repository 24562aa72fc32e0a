"""What sizes stand for, and which numbers are among them."""

import json

import numpy as np
import pytest

from fastdeploy_diffusion.runtime.program import TensorSpec
from fastdeploy_diffusion.size_range import (
    ScaledRange,
    SizeRange,
    choose_size,
    divide,
    fits,
    is_batch,
    multiply,
)

HEIGHT = SizeRange("height", 4, 8, 16)


@pytest.mark.parametrize(
    ("given", "size", "expected"),
    [
        (3, HEIGHT, False),
        (4, HEIGHT, True),
        (8, HEIGHT, True),
        (16, HEIGHT, True),
        (17, HEIGHT, False),
        (0, None, False),
        (1, None, True),
        (10**6, None, True),
        (5, 5, True),
        (4, 5, False),
        (6, 5, False),
    ],
)
def test_which_numbers_fit(given, size, expected):
    assert fits(given, size) is expected


def test_what_counts_the_batch():
    assert is_batch(None)
    assert is_batch(SizeRange("batch", 1, 2, 4))
    assert not is_batch(HEIGHT)
    assert not is_batch(2)


@pytest.mark.parametrize(
    ("wanted", "chosen"), [({}, 8), ({"height": 5}, 5), ({"height": 3}, 4), ({"height": 17}, 16)]
)
def test_the_nearest_of_a_range_is_chosen(wanted, chosen):
    assert choose_size(HEIGHT, {"width": 7, **wanted}) == chosen


def test_other_sizes_are_what_they_are():
    assert choose_size(5, {"batch": 3}) == 5
    assert choose_size(None, {"batch": 3}) == 3
    assert choose_size(SizeRange("batch", 1, 2, 4), {"batch": 3}) == 3


def test_multiples():
    assert multiply(HEIGHT, 8) == ScaledRange("height_x8", 32, 64, 128, HEIGHT, times=8)
    assert (multiply(5, 8), multiply(None, 8), multiply(HEIGHT, 1)) == (40, None, HEIGHT)
    assert choose_size(multiply(HEIGHT, 8), {"height": 5}) == 40
    assert choose_size(multiply(HEIGHT, 8), {"height": 99}) == 128
    assert str(HEIGHT) == "4 to 16"


def test_shares_are_rounded_up():
    width = SizeRange("width", 3, 7, 9)
    assert divide(width, 2) == ScaledRange("width_d2", 2, 4, 5, width, by=2)
    assert [choose_size(divide(width, 4), {"width": size}) for size in (3, 4, 5, 9)] == [1, 1, 2, 3]
    assert choose_size(divide(width, 2), {}) == 4
    assert (divide(5, 2), divide(None, 2), divide(width, 1)) == (3, None, width)


def test_a_spec_survives_its_description():
    spec = TensorSpec("x", (SizeRange("batch", 1, 2, 4), 4, None, HEIGHT), "float32")
    assert spec.describe() == ["x", [["batch", 1, 2, 4], 4, None, ["height", 4, 8, 16]], "float32"]
    assert spec.open_shape == (None, 4, None, None)
    assert str(spec) == "float32 (1 to 4, 4, any, 4 to 16)"
    scaled = TensorSpec("x", (None, multiply(HEIGHT, 8), divide(HEIGHT, 2)), "float32")
    for each in (spec, scaled):
        assert TensorSpec.parse(json.loads(json.dumps(each.describe()))) == each


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((4, 4, 9, 16), "float32", True),
        ((1, 4, 1, 4), "float32", True),
        ((5, 4, 9, 16), "float32", False),
        ((4, 4, 9, 17), "float32", False),
        ((4, 3, 9, 16), "float32", False),
        ((4, 4, 0, 16), "float32", False),
        ((4, 4, 9), "float32", False),
        ((4, 4, 9, 16, 1), "float32", False),
        ((4, 4, 9, 16), "float64", False),
    ],
)
def test_which_arrays_a_spec_accepts(shape, dtype, expected):
    spec = TensorSpec("x", (SizeRange("batch", 1, 2, 4), 4, None, HEIGHT), "float32")
    assert spec.accepts(np.zeros(shape, dtype)) is expected
