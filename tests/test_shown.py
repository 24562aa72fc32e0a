"""Values in messages: on one line, and short."""

import numpy as np
import pytest

from fastdeploy_diffusion.shown import shorten, show

VALUES = {
    "'a cat'": "a cat",
    "0.5": 0.5,
    str(10**40): 10**40,
    "a number of about 5001 digits": 10**5000,
    "a number of about 401 digits": -(10**400),
    "array([[0., 0.], [0., 0.]])": np.zeros((2, 2)),
}


@pytest.mark.parametrize("shown", VALUES)
def test_a_value_is_shown_on_one_line(shown):
    assert show(VALUES[shown]) == shown


@pytest.mark.parametrize("value", ["x" * 10**6, ["x" * 10**6] * 5, {1: [1] * 10**5}], ids=type)
def test_what_is_long_is_cut(value):
    assert len(show(value)) < 400


def test_texts_are_cut_with_a_mark():
    assert shorten("x" * 60) == "x" * 60
    assert shorten("x" * 61) == f"{'x' * 60}…"
