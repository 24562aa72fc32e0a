"""Converted checkpoints hold every tensor, with its numbers, and are whole or not there."""

import errno
import os
from functools import partial

import numpy as np
import pytest
from checkpoint_writers import write_tensors
from safetensors import safe_open
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion.checkpoints import build_skeleton, conversion, open_checkpoint
from fastdeploy_diffusion.checkpoints.conversion import convert_file, convert_model
from fastdeploy_diffusion.checkpoints.weight_files import open_weight_file
from fastdeploy_diffusion.errors import CheckpointError, DiskFullError, RequestError
from fastdeploy_diffusion.paddle_runtime import eager_mode, paddle

torch = pytest.importorskip("torch")

COMPONENTS = ("text_encoder", "unet", "vae")


def ignore(*_):
    pass


def open_file(path):
    return open_weight_file(path, "", "weights")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_file_of_torch_keeps_names_numbers_and_dtype(dtype, tmp_path):
    numbers = torch.Generator().manual_seed(3)
    tensors = {
        "a.weight": torch.randn(3, 5, generator=numbers).to(dtype),
        "b.weight": torch.randn(4, 6, generator=numbers).to(dtype).T,
        "c": torch.tensor(0.5).to(dtype),
    }
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "a.ckpt")
    seen = []
    written = convert_file(
        open_file(tmp_path / "a.ckpt"), tmp_path / "a.safetensors", None, lambda *x: seen.append(x)
    )
    assert (written.tensors, written.parameters) == (3, 15 + 24 + 1)
    assert [each[1:] for each in seen] == [(0, 3), (1, 3), (2, 3)]
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert set(file.keys()) == set(tensors)
        for name, tensor in tensors.items():
            assert torch.equal(file.get_tensor(name), tensor)
            assert file.get_tensor(name).dtype == dtype
    assert [each.name for each in tmp_path.iterdir() if "unfinished" in each.name] == []


def test_quantized_tensors_are_multiplied_out(tmp_path):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "flux")
    value = np.random.default_rng(3).standard_normal((4, 64)).astype(np.float32)
    kind = gguf.GGMLQuantizationType.Q8_0
    blocks = gguf.quants.quantize(value, kind)
    writer.add_tensor("x.weight", blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for dtype in (None, "F16"):
        output = tmp_path / f"{dtype}.safetensors"
        assert convert_file(open_file(tmp_path / "a.gguf"), output, dtype, ignore).dtype == (
            dtype or "F32"
        )
        wanted = gguf.quants.dequantize(blocks, kind)
        np.testing.assert_allclose(open_file(output).read("x.weight"), wanted, rtol=1e-3)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_tiny_sd(tmp_path_factory.mktemp("models") / "sd", family="sd2", seed=8)
    return open_checkpoint(folder)


def find_tokenizers(checkpoint):
    return [checkpoint.folder(name) for name in checkpoint.family.tokenizers]


def test_a_diffusers_folder_is_the_same_model(model, tmp_path):
    output = tmp_path / "out"
    written = convert_model(model, output, "diffusers", None, find_tokenizers(model), ignore)
    opened = open_checkpoint(output)
    assert opened.digest() == model.digest()
    assert [each.name for each in written] == list(COMPONENTS)
    assert sum(each.tensors for each in written) == sum(len(model.tensors(n)) for n in COMPONENTS)
    for name in (*COMPONENTS, "scheduler"):
        assert opened.config(name) == model.config(name)
    assert (output / "tokenizer" / "vocab.json").exists()


def test_paddle_reads_pdparams_into_its_layers(model, tmp_path):
    convert_model(model, tmp_path / "out", "pdparams", None, (), ignore)
    for name in COMPONENTS:
        kind = model.family.networks[name]
        config = kind.config.from_dict(model.config(name))
        with eager_mode():
            layer = kind.make(config)
            loaded = paddle.load(str(tmp_path / "out" / name / "model_state.pdparams"))
            assert layer.set_state_dict(loaded) == ([], [])
            wanted = build_skeleton(partial(kind.make, config))
        from fastdeploy_diffusion.checkpoints import load_weights

        load_weights(wanted, model.tensors(name))
        for key, value in wanted.state_dict().items():
            np.testing.assert_array_equal(layer.state_dict()[key].numpy(), value.numpy(), key)


@pytest.mark.parametrize("dtype", [None, "F16", "BF16"])
def test_numpy_reads_npz(dtype, model, tmp_path):
    convert_model(model, tmp_path / "out", "npz", dtype, (), ignore)
    for name in COMPONENTS:
        source = model.tensors(name)
        with np.load(tmp_path / "out" / name / "weights.npz", allow_pickle=False) as found:
            assert set(found.files) == set(source.names)
            for each in source:
                wanted = source.read(each)
                if dtype == "F16":
                    wanted = wanted.astype(np.float16)
                np.testing.assert_array_equal(found[each], wanted)


def test_what_is_not_of_the_model_is_refused(tmp_path):
    folder = write_tiny_sd(tmp_path / "sd")
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = {name: open_file(path).read(name).copy() for name in open_file(path).tensors}
    write_tensors(path, {**tensors, "spare": np.zeros((2, 2), np.float32)})
    with pytest.raises(CheckpointError, match="1 unexpected"):
        convert_model(open_checkpoint(folder), tmp_path / "out", "npz", None, (), ignore)
    assert not (tmp_path / "out").exists()


def test_numbers_too_large_for_float16_are_refused(tmp_path):
    path = write_tensors(tmp_path / "a.safetensors", {"x": np.array([1, 70000], np.float32)})
    output = tmp_path / "b.safetensors"
    with pytest.raises(CheckpointError, match="values up to 7e") as refused:
        convert_file(open_file(path), output, "F16", ignore)
    assert "bfloat16" in refused.value.fix
    assert not output.exists()
    convert_file(open_file(path), output, "BF16", ignore)


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, DiskFullError), (errno.EACCES, RequestError)]
)
def test_what_cannot_be_written_leaves_nothing(number, kind, model, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(kind) as refused:
        convert_model(model, tmp_path / "out", "npz", None, (), ignore)
    assert str(tmp_path) in refused.value.problem
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_replaced_or_half_written(model, tmp_path):
    path = write_tensors(tmp_path / "a.safetensors", {"x": np.ones(2, np.float32)})
    (tmp_path / "there").mkdir()
    with pytest.raises(RequestError, match="exists already"):
        convert_model(model, tmp_path / "there", "npz", None, (), ignore)
    with pytest.raises(RequestError, match="no folder"):
        convert_file(open_file(path), tmp_path / "none" / "b.safetensors", None, ignore)

    def interrupt(what, done, whole):
        if done:
            raise KeyboardInterrupt

    for form in (conversion.NPZ, conversion.DIFFUSERS):
        with pytest.raises(KeyboardInterrupt):
            convert_model(model, tmp_path / "out", form, None, find_tokenizers(model), interrupt)
    assert {each.name for each in tmp_path.iterdir()} == {"a.safetensors", "there"}
