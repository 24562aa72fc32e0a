"""Text in columns: aligned, and within the width of a terminal."""

import pytest

from fastdeploy_diffusion.cli.table import align, align_within, format_age, format_bytes


def test_columns_are_as_wide_as_their_longest_cell():
    assert align([["a", "long cell", "x"], ["long", "b", "y"]]) == [
        "a     long cell  x",
        "long  b          y",
    ]


def test_one_column_is_cut_where_lines_would_be_too_long():
    rows = [["a", "0123456789", "b"], ["a", "01234", "b"]]
    assert align_within(16, rows, 1) == align(rows)
    assert align_within(15, rows, 1) == ["a  01234567…  b", "a  01234      b"]


def test_a_cell_that_is_cut_keeps_eight_characters():
    rows = [["a" * 30, "0123456789", "b"]]
    assert align_within(20, rows, 1) == [f"{'a' * 30}  0123456…  b"]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (3 * 2**20, "3.0 MiB"),
        (5 * 2**29, "2.5 GiB"),
    ],
)
def test_sizes_have_their_unit(size, text):
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "now"), (59, "now"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (200_000, "2 d")],
)
def test_ages_have_their_unit(seconds, text):
    assert format_age(seconds) == text
