"""Tensors are copied into given memory bit by bit, from every layout, and a short file is told."""

import os

import numpy as np
import pytest
from checkpoint_writers import write_tensors

from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource, TensorView
from fastdeploy_diffusion.errors import CheckpointError

VALUES = {
    "plain": np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32),
    "kernel": np.random.default_rng(1).standard_normal((4, 3, 1, 1)).astype(np.float32),
}
VIEWS = {
    "whole": {"stored_name": "plain"},
    "slice": {"stored_name": "plain", "slices": (1,), "parts": 3},
    "neighbours": {"stored_name": "plain", "slices": (1, 2, 3), "parts": 6},
    "swapped": {"stored_name": "plain", "slices": (1, 0), "parts": 2},
    "transposed": {"stored_name": "plain", "transposed": True},
    "squeezed": {"stored_name": "kernel", "squeezed": True},
}


@pytest.fixture(params=["F32", "F16", "BF16"])
def source(request, tmp_path):
    file = SafetensorsFile(write_tensors(tmp_path / "weights", VALUES, request.param))
    views = {name: TensorView(file, **options) for name, options in VIEWS.items()}
    return TensorSource("weights", views)


@pytest.mark.parametrize("name", VIEWS)
def test_the_same_as_mapped(name, source):
    wanted = source.read_stored(name)
    given = np.zeros(wanted.shape, wanted.dtype)
    source.read_into(name, given)
    np.testing.assert_array_equal(given, wanted)
    assert given.any()


def test_tensors_under_other_names(source):
    renamed = source.rename({"weight": "slice", "other": "whole"})
    assert renamed.names == ("other", "weight")
    np.testing.assert_array_equal(renamed.read("weight"), source.read("slice"))
    with pytest.raises(CheckpointError, match="has no tensor 'hole'"):
        source.rename({"weight": "hole"})


def test_a_file_that_ends_early_is_an_error(tmp_path):
    path = write_tensors(tmp_path / "weights", VALUES)
    file = SafetensorsFile(path)
    status = path.stat()
    os.truncate(path, status.st_size - 8)
    out = np.zeros(VALUES["kernel"].nbytes, np.uint8)
    with pytest.raises(CheckpointError, match="weights changed on disk"):
        file.read_bytes("kernel", 0, out)
    # As if it were cut short between the check and the read.
    file.check_unchanged = lambda: None
    with pytest.raises(CheckpointError, match=r"weights: cannot read tensor 'kernel': .* 8 bytes"):
        file.read_bytes("kernel", 0, out)
