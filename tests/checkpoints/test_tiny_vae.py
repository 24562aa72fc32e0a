"""Tiny autoencoders with the names of the original code."""

import numpy as np
import paddle
import pytest
import torch
from original_tiny_vae import make_original_decoder
from safetensors.torch import save_file

from fastdeploy_diffusion.checkpoints.layer_weights import build_layer
from fastdeploy_diffusion.checkpoints.tiny_vae import open_tiny_vae
from fastdeploy_diffusion.errors import CheckpointError, UnsupportedModelError
from fastdeploy_diffusion.models.autoencoder_tiny import TinyDecoder

DECODER = "decoder."


def save(path, tensors):
    tensors = {name: each.contiguous() for name, each in tensors.items()}
    if path.suffix == ".pth":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    return path


@pytest.mark.parametrize("name", ["taesd_decoder.safetensors", "taesd_decoder.pth"])
@pytest.mark.parametrize("prefix", ["", DECODER])
@pytest.mark.parametrize("blocks", [(3, 3, 3, 1), (1, 0, 2)])
def test_it_decodes_as_the_original_code(tmp_path, prefix, blocks, name):
    original = make_original_decoder(channels=5, width=6, blocks=blocks)
    tensors = {prefix + name: each for name, each in original.state_dict().items()}
    if prefix:
        tensors["encoder.0.weight"] = torch.zeros(6, 3, 3, 3)  # of the other half; not read
    opened = open_tiny_vae(save(tmp_path / name, tensors))
    assert opened.config.num_decoder_blocks == blocks
    assert opened.config.latent_channels == 5
    names = {name.removeprefix(DECODER): name for name in opened.tensors}
    layer = build_layer(lambda: TinyDecoder(opened.config), opened.tensors.rename(names))
    latents = 3 * np.random.default_rng(4).standard_normal((2, 5, 3, 4), np.float32)
    with torch.no_grad():
        wanted = 2 * original(torch.tensor(latents)).numpy() - 1
    with paddle.no_grad():
        given = layer(paddle.to_tensor(latents)).numpy()
    assert np.abs(given - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("tensors", "error", "match"),
    [
        ({"0.weight": (8, 3, 3, 3), "1.conv.0.weight": (8, 8, 3, 3)}, CheckpointError, "encoder"),
        ({"encoder.0.weight": (8, 3, 3, 3)}, CheckpointError, "encoder"),
        ({"decoder.layers.0.weight": (8, 4, 3, 3)}, CheckpointError, "its folder"),
        ({"2.weight": (8, 4, 3, 3)}, CheckpointError, "1.weight is missing"),
        ({"1.weight": (8, 4, 3, 3), "3.skip.weight": (8, 4, 1, 1)}, CheckpointError, "3.skip"),
        (
            {"1.weight": (8, 4, 3, 3), "3.conv.0.weight": (8, 8, 3, 3), "5.weight": (4, 8, 3, 3)},
            UnsupportedModelError,
            "block_out_channels",
        ),
        ({"1.weight": (8,)}, CheckpointError, "latent_channels"),
    ],
)
def test_what_is_no_decoder_is_refused(tmp_path, tensors, error, match):
    path = tmp_path / "tiny.safetensors"
    save(path, {name: torch.zeros(shape) for name, shape in tensors.items()})
    with pytest.raises(error, match=match):
        open_tiny_vae(path)


def test_files_of_other_formats_are_refused(tmp_path):
    path = tmp_path / "taesd_decoder.onnx"
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="not a tiny VAE"):
        open_tiny_vae(path)


@pytest.mark.parametrize("name", ["missing", "missing.safetensors"])
def test_a_missing_one_is_named(tmp_path, name):
    with pytest.raises(CheckpointError, match=name):
        open_tiny_vae(tmp_path / name)
