"""The digest changes with every part of the weights, and with nothing else."""

import shutil

import numpy as np
import pytest
from checkpoint_writers import write_folder, write_json, write_tensors

from fastdeploy_diffusion.checkpoints import open_checkpoint
from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.tensor_source import collect_tensors
from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.families.keys.rules import rename

VALUES = {"a": np.arange(6, dtype=np.float32).reshape(3, 2), "b": np.ones(3, np.float32)}


def digest_of(path, values, dtype="F32", rules=()):
    file = SafetensorsFile(write_tensors(path, values, dtype))
    return collect_tensors(path, [file], rules).digest()


def test_same_weights_give_the_same_digest_wherever_they_lie(tmp_path):
    write_folder(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    write_json(tmp_path / "two/scheduler/scheduler_config.json", {"beta_start": 0.5})
    first, second = (open_checkpoint(tmp_path / name).digest() for name in ("one", "two"))
    assert first == second
    assert len(first) == 64


def test_order_names_in_the_file_and_fusion_do_not_matter(tmp_path):
    expected = digest_of(tmp_path / "1", VALUES)
    assert digest_of(tmp_path / "2", dict(reversed(VALUES.items()))) == expected
    renamed = {"old.a": VALUES["a"], "old.b": VALUES["b"]}
    assert digest_of(tmp_path / "3", renamed, rules=[rename(r"old\.(.)", r"\1")]) == expected
    transposed = {"t": np.ascontiguousarray(VALUES["a"].T), "b": VALUES["b"]}
    rules = [rename("t", "a", transposed=True)]
    assert digest_of(tmp_path / "4", transposed, rules=rules) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda values: {**values, "c": values["b"]},
        lambda values: {"a": values["a"]},
        lambda values: {"a": values["a"], "c": values["b"]},
        lambda values: {**values, "a": values["a"].reshape(2, 3)},
        lambda values: {**values, "a": values["a"] + np.float32(1e-6)},
    ],
)
def test_any_change_of_the_weights_changes_it(change, tmp_path):
    assert digest_of(tmp_path / "1", VALUES) != digest_of(tmp_path / "2", change(VALUES))


def test_dtype_changes_it(tmp_path):
    digests = {digest_of(tmp_path / dtype, VALUES, dtype) for dtype in ("F32", "F16", "BF16")}
    assert len(digests) == 3


def test_empty_and_scalar_tensors_count(tmp_path):
    empty = VALUES | {"e": np.empty((0, 2), np.float32), "s": np.array(1.0, np.float32)}
    assert digest_of(tmp_path / "1", empty) != digest_of(tmp_path / "2", VALUES)


def test_the_component_counts(tmp_path):
    one, two = write_folder(tmp_path / "one"), write_folder(tmp_path / "two")
    unet, vae = (two / name / "diffusion_pytorch_model.safetensors" for name in ("unet", "vae"))
    unet.rename(two / "swap")
    vae.rename(unet)
    (two / "swap").rename(vae)
    assert open_checkpoint(one).digest() != open_checkpoint(two).digest()


def test_file_changed_after_hashing_is_noticed(tmp_path):
    path = write_tensors(tmp_path / "a", VALUES)
    source = collect_tensors(path, [SafetensorsFile(path)], [])
    assert source.digest() == source.digest()
    write_tensors(path, VALUES | {"c": VALUES["b"]})
    with pytest.raises(CheckpointError, match="changed on disk"):
        source.digest()
