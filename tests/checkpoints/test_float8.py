"""Floating point of eight bits is read as PyTorch reads it, with the scales of ComfyUI's files."""

import numpy as np
import pytest

from fastdeploy_diffusion.checkpoints.tensor_source import TensorView, collect_tensors
from fastdeploy_diffusion.checkpoints.weight_files import open_weight_file
from fastdeploy_diffusion.errors import CheckpointError

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

DTYPES = ("float8_e4m3fn", "float8_e5m2")


def write(path, tensors):
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return open_weight_file(path, "", "weights")


def draw(dtype, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(getattr(torch, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_every_number_is_that_of_torch(dtype, suffix, tmp_path):
    codes = torch.arange(256, dtype=torch.uint8).view(getattr(torch, dtype)).reshape(16, 16)
    file = write(tmp_path / f"a{suffix}", {"x.weight": codes})
    assert file.tensors["x.weight"].dtype == "F16"
    np.testing.assert_array_equal(file.read("x.weight"), codes.float().numpy())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [None, 1, 6])
def test_scales_belong_to_their_weights(dtype, rows, tmp_path):
    weight, scale = draw(dtype, 6, 4), torch.tensor(0.37)
    if rows:
        scale = torch.linspace(0.1, 2, rows)
    file = write(
        tmp_path / "a.safetensors",
        {
            "x.weight": weight,
            "x.scale_weight": scale,
            "x.scale_input": torch.ones(1),
            "x.bias": torch.ones(6),
            "scaled_fp8": torch.zeros(0, dtype=getattr(torch, dtype)),
        },
    )
    assert set(file.tensors) == {"x.weight", "x.bias"}
    wanted = weight.float() * scale.reshape(-1, 1)
    np.testing.assert_array_equal(file.read("x.weight"), wanted.numpy())


def test_a_part_is_read_as_the_whole(tmp_path):
    weight = draw(DTYPES[0], 6, 4)
    file = write(tmp_path / "a.safetensors", {"x.weight": weight})
    view = TensorView(file, "x.weight", (2, 1), 3)
    out = np.empty((4, 4), np.float16)
    view.read_into(out)
    np.testing.assert_array_equal(out, weight.float().numpy()[[4, 5, 2, 3]])
    np.testing.assert_array_equal(view.read(), out)


def test_digests_are_those_of_the_numbers(tmp_path):
    first, second = draw(DTYPES[0], 6, 4), draw(DTYPES[1], 6, 4)

    def digest(name, tensors):
        file = write(tmp_path / name, tensors)
        return collect_tensors(file.path, [file], ()).digest()

    digests = {
        digest("a.safetensors", {"x": first}),
        digest("b.safetensors", {"x": second}),
        digest("c.safetensors", {"x": first.half()}),
    }
    assert len(digests) == 2
    scaled = [
        digest("d.safetensors", {"x.weight": first, "x.scale_weight": torch.tensor(number)})
        for number in (0.5, 0.25)
    ]
    assert scaled[0] != scaled[1]


@pytest.mark.parametrize("scale", [torch.ones(5), torch.ones(3, dtype=torch.int64)])
def test_a_scale_that_does_not_fit_is_refused(scale, tmp_path):
    with pytest.raises(CheckpointError, match=r"the scale of 'x\.weight'"):
        write(
            tmp_path / "a.safetensors", {"x.weight": draw(DTYPES[0], 3, 4), "x.scale_weight": scale}
        )


def test_transposed_numbers_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="transposed"):
        write(tmp_path / "a.pt", {"x.weight": draw(DTYPES[0], 3, 4).T})
