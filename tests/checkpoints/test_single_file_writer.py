"""What is written as a single file is what was read, under the names of the LDM code."""

import numpy as np
import pytest
from checkpoints.checkpoint_writers import write_sparse, write_tensors
from checkpoints.ldm_reference import single_file
from checkpoints.single_file_writer import write_single_file
from safetensors import safe_open

from fastdeploy_diffusion.checkpoints import open_checkpoint
from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.keys.reversed_rules import ReversedRule, reverse_rules
from fastdeploy_diffusion.families.keys.rules import rename

# What tells the family must keep its size; everything else may be small.
TELLING = ("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", "input_blocks.0.0.weight")
INERT = ("betas", "alphas_cumprod", "model_ema.", "position_ids")


def draw_small():
    random = np.random.default_rng(4)
    shapes = {
        name: shape if name.endswith(TELLING) else tuple(min(size, 2) for size in shape)
        for name, shape in single_file("sd1").items()
        if not any(word in name for word in INERT)
    }
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_names_shapes_and_values_come_back(tmp_path, dtype):
    written = draw_small()
    first = open_checkpoint(write_tensors(tmp_path / "first.safetensors", written, dtype))
    write_single_file(first, tmp_path / "second.safetensors")
    with safe_open(tmp_path / "second.safetensors", "np") as file:
        assert {name: file.get_slice(name).get_shape() for name in file.keys()} == {  # noqa: SIM118
            name: list(values.shape) for name, values in written.items()
        }
    second = open_checkpoint(tmp_path / "second.safetensors")
    for component in ("text_encoder", "unet", "vae"):
        ours, theirs = second.tensors(component), first.tensors(component)
        assert ours.names == theirs.names
        for name in ours:
            np.testing.assert_array_equal(ours.read(name), theirs.read(name))
    if dtype != "BF16":
        assert second.digest() == first.digest()


def test_another_family_is_refused(tmp_path):
    checkpoint = open_checkpoint(write_sparse(tmp_path / "x.safetensors", single_file("sd2")))
    with pytest.raises(UnsupportedModelError, match="family sd2"):
        write_single_file(checkpoint, tmp_path / "y.safetensors")


def test_a_pattern_that_cannot_be_read_backwards():
    with pytest.raises(ValueError, match="cannot be read backwards"):
        ReversedRule(rename("a+", "b"))


def test_a_fused_tensor_is_read_backwards_name_by_name():
    first, second = reverse_rules([rename(r"qkv\.(\d)", r"q.\1", r"k.\1", slices=((0,), (2, 1)))])
    assert first.apply("q.7") == second.apply("k.7") == ["qkv.7"]
    assert not first.apply("k.7")
    assert (first.slices, second.slices, second.parts) == ((0,), (2, 1), 3)
