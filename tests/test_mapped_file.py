"""Mapped arrays: the file's values, no descriptors, pages that go and come back."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from fastdeploy_diffusion.mapped_file import find_pages, lies_in_file, map_array

linux = pytest.mark.skipif(sys.platform != "linux", reason="read as Linux tells it")


@pytest.fixture
def written(tmp_path):
    """A file of 40,000 numbers behind a header of odd length, and the numbers."""
    numbers = np.random.default_rng().standard_normal(40_000).astype(np.float32)
    path = tmp_path / "numbers"
    path.write_bytes(b"head!" + numbers.tobytes())
    return path, numbers


@pytest.mark.parametrize("first", [0, 1, 1023, 1024, 5000])
def test_the_values_are_those_of_the_file(written, first):
    path, numbers = written
    array = map_array(path, np.float32, 5 + 4 * first, (10, 300))
    np.testing.assert_array_equal(array, numbers[first : first + 3000].reshape(10, 300))
    assert lies_in_file(array)
    assert lies_in_file(array[2:].T)
    assert not lies_in_file(array + 1)


@linux
def test_no_descriptor_stays_open(written):
    path, _ = written
    before = len(os.listdir("/proc/self/fd"))
    arrays = [map_array(path, np.float32, 5, (100,)) for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(arrays) == 50


@linux
def test_the_mapping_goes_with_the_last_array(written):
    path, _ = written

    def count():
        return Path("/proc/self/maps").read_text().count(str(path))

    array = map_array(path, np.float32, 5, (40_000,))
    part = array[7:9]
    assert count() == 1
    del array
    assert count() == 1
    assert part.shape == (2,)
    del part
    assert count() == 0


def test_writing_changes_the_array_alone(written):
    path, numbers = written
    array = map_array(path, np.float32, 5, (40_000,))
    array[:] = 0
    np.testing.assert_array_equal(map_array(path, np.float32, 5, (40_000,)), numbers)


@linux
def test_pages_that_are_given_back_are_read_again(written):
    path, numbers = written
    array = map_array(path, np.float32, 5, (40_000,))
    pages = find_pages(array)
    np.testing.assert_array_equal(array, numbers)
    path.write_bytes(b"head!" + (-numbers).tobytes())  # the same file
    pages.give_back()
    np.testing.assert_array_equal(array, -numbers)


def test_what_is_beyond_the_end_is_refused(written):
    path, _ = written
    with pytest.raises(ValueError, match="160005 bytes of 160009"):
        map_array(path, np.float32, 9, (40_000,))
    with pytest.raises(FileNotFoundError):
        map_array(path.with_name("missing"), np.float32, 0, (1,))
