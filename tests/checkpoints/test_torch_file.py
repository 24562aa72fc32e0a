"""Files of torch.save: every number as PyTorch reads it, and nothing of them is run."""

import collections
import functools
import io
import json
import os
import pickle
import random
import shutil
import sys
import time
import types
import zipfile

import numpy as np
import pytest
from damaged_bytes import mutate
from safetensors.torch import load_file
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion.checkpoints import open_checkpoint
from fastdeploy_diffusion.checkpoints.torch_file import TorchFile
from fastdeploy_diffusion.checkpoints.weight_files import open_weight_files
from fastdeploy_diffusion.errors import CheckpointError

torch = pytest.importorskip("torch")

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


def save(path, content, **options):
    torch.save(content, path, **options)
    return path


def draw(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_are_those_of_torch(dtype, tmp_path):
    values = {
        "matrix": draw(5, 7, dtype=DTYPES[dtype]),
        "number": draw(dtype=DTYPES[dtype]),
        "empty": draw(0, 3, dtype=DTYPES[dtype]),
        "parameter": torch.nn.Parameter(draw(3, dtype=DTYPES[dtype])),
    }
    file = TorchFile(save(tmp_path / "a.ckpt", values))
    assert file.tensors.keys() == values.keys()
    for name, value in values.items():
        assert file.tensors[name].dtype == dtype
        assert file.tensors[name].shape == tuple(value.shape)
        np.testing.assert_array_equal(file.read(name), value.detach().float().numpy())


def test_views_of_shared_storages_are_read_in_their_order(tmp_path):
    whole = draw(6, 8, 3, 3)
    values = {
        "rows": whole[2:4],
        "turned": whole.permute(1, 0, 3, 2),
        "steps": whole[::2, 1::3],
        "last": whole.to(memory_format=torch.channels_last),
        "tied": whole,
    }
    file = TorchFile(save(tmp_path / "a.pt", values))
    for name, value in values.items():
        np.testing.assert_array_equal(file.read(name), value.numpy())
        out = np.empty(24, np.uint8)
        file.read_bytes(name, 8, out)
        assert out.tobytes() == value.contiguous().numpy().tobytes()[8:32]


def test_weights_are_found_in_the_checkpoint_of_a_training(tmp_path, monkeypatch):
    # Lightning names its callbacks by their classes.
    names = ["pytorch_lightning", "pytorch_lightning.callbacks"]
    names.append(f"{names[-1]}.model_checkpoint")
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    named = type("ModelCheckpoint", (), {"__module__": names[-1]})
    sys.modules[names[-1]].ModelCheckpoint = named
    weights = collections.OrderedDict(a=draw(2, 2), b=draw(3))
    weights._metadata = {"version": 1}
    content = {
        "epoch": 3,
        "state_dict": weights,
        "callbacks": {named: {"best": None}},
        "optimizer_states": [{"state": {0: {"step": 7, "mean": draw(2)}}}],
    }
    file = TorchFile(save(tmp_path / "a.ckpt", content))
    assert set(file.tensors) == {"a", "b"}


def test_dictionaries_in_dictionaries_are_joined_by_dots(tmp_path):
    content = {"image_proj": {"proj.weight": draw(2)}, "ip_adapter": {"1.to_k_ip.weight": draw(3)}}
    file = TorchFile(save(tmp_path / "a.bin", content))
    assert set(file.tensors) == {"image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"}


def test_a_folder_may_hold_files_of_torch(tmp_path):
    write_tiny_sd(plain := tmp_path / "plain")
    shutil.copytree(plain, saved := tmp_path / "saved")
    for file in saved.rglob("*.safetensors"):
        stem = "pytorch_model" if file.stem == "model" else file.stem
        save(file.with_name(f"{stem}.bin"), load_file(file))
        file.unlink()
    ours, wanted = open_checkpoint(saved), open_checkpoint(plain)
    for component in ("unet", "vae", "text_encoder"):
        assert ours.tensors(component).names == wanted.tensors(component).names
        for name in ours.tensors(component):
            np.testing.assert_array_equal(
                ours.tensors(component).read(name), wanted.tensors(component).read(name)
            )


def test_shards_may_be_files_of_torch(tmp_path):
    first, second = {"a": draw(2)}, {"b": draw(3)}
    names = ["x-00001-of-00002.bin", "x-00002-of-00002.bin"]
    save(tmp_path / names[0], first)
    save(tmp_path / names[1], second)
    weight_map = dict(zip("ab", names, strict=True))
    (tmp_path / "x.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    files = open_weight_files(tmp_path, "x", None, tmp_path)
    assert [list(file.tensors) for file in files] == [["a"], ["b"]]


class Calls:
    """Unpickling it calls a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def write_archive(path, content, entries=(), method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", content)
        for name, numbers in entries:
            archive.writestr(name, numbers)
    return path


def describe_tensor(shape, strides, count, *, offset=0, key="0"):
    """What torch.save writes of a tensor, of a storage of any size."""
    content = io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return value[1] if isinstance(value, tuple) and value[:1] == ("here",) else None

    storage = ("here", ("storage", torch.FloatStorage, key, "cpu", count))
    rebuilt = Calls(torch._utils._rebuild_tensor_v2, storage, offset, shape, strides, False, {})
    Pickler(content, protocol=2).dump({"x": rebuilt})
    return content.getvalue()


EVIL = {
    "posix.system": Calls(os.system, "touch executed"),
    "builtins.exec": Calls(exec, "open('executed', 'w')"),
    "builtins.eval": {"x": Calls(eval, "1")},
    "builtins.getattr": Calls(getattr, Calls(getattr, os, "system"), "x"),
    "functools.partial": Calls(functools.partial, os.system, "touch executed"),
    "builtins.open": [{"state_dict": Calls(open, "executed", "w")}],
    "torch.load": {"state_dict": {"w": Calls(torch.load, "other.pt")}},
}


@pytest.mark.parametrize("name", EVIL)
def test_what_would_be_called_is_refused_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        content = pickle.dumps(EVIL[name], protocol=2)
    except (pickle.PicklingError, TypeError):
        content = b"\x80\x02c" + "\n".join(name.rsplit(".", 1)).encode() + b"\n(tR."
    path = write_archive(tmp_path / "a.ckpt", content)
    with pytest.raises(CheckpointError, match="nothing was run") as refused:
        TorchFile(path)
    assert name.rsplit(".", 1)[1] in refused.value.problem
    assert os.listdir(tmp_path) == ["a.ckpt"]


RAW = {
    "without an end": b"\x80\x02}",
    "nothing": b"",
    "many places": b"\x80\x02}r\xff\xff\xff\x7f.",
    "an old class": b"(ios\nsystem\n.",
    "an object": b"\x80\x02cos\nsystem\n)\x81.",
    "an extension": b"\x80\x02\x82\x01.",
    "text of other protocols": b"I99999999999999999999\n.",
    "a long number": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a long text": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "more marks": b"\x80\x02(((t.",
    "nothing to take": b"\x80\x02R.",
    "an unknown place": b"\x80\x02h\x07.",
    "a list as key": b"\x80\x02}]Ns.",
    "a tuple as key": b"\x80\x02})Ns.",
    "a parameter": b"\x80\x02ctorch._utils\n_rebuild_parameter\nN\x85R.",
    "a shape": b"\x80\x02ctorch\nSize\nK\x01\x85R.",
    "a storage of nothing": b"\x80\x02NQ.",
    "not a dictionary": b"\x80\x02]q\x00.",
}


@pytest.mark.parametrize("case", RAW)
def test_a_damaged_pickle_is_a_typed_error(case, tmp_path):
    with pytest.raises(CheckpointError):
        TorchFile(write_archive(tmp_path / "a.ckpt", RAW[case]))


def test_values_that_hold_themselves_are_refused(tmp_path):
    inner: dict = {}
    inner["again"] = inner
    with pytest.raises(CheckpointError, match="too deep"):
        TorchFile(write_archive(tmp_path / "a.ckpt", pickle.dumps(inner, protocol=2)))
    wide = {"x": 1}
    for _ in range(20):
        wide = {str(key): wide for key in range(20)}
    with pytest.raises(CheckpointError, match="too deep"):
        TorchFile(write_archive(tmp_path / "b.ckpt", pickle.dumps(wide, protocol=2)))


@pytest.mark.parametrize(
    ("shape", "strides", "count", "offset"),
    [
        ((4, 5), (5, 1), 20, 0),  # of 16 numbers
        ((4, 4), (4, 1), 16, 1),
        ((2**40, 2**40), (0, 0), 16, 0),  # one number, shown again and again
        ((2, 2), (2**40, 1), 16, 0),
    ],
)
def test_a_tensor_lies_within_its_numbers(shape, strides, count, offset, tmp_path):
    content = describe_tensor(shape, strides, count, offset=offset)
    path = write_archive(tmp_path / "a.ckpt", content, [("archive/data/0", bytes(64))])
    with pytest.raises(CheckpointError, match="reaches beyond its numbers"):
        TorchFile(path)


def test_numbers_have_to_be_there(tmp_path):
    content = describe_tensor((4, 4), (4, 1), 16, key="../../etc/passwd")
    path = write_archive(tmp_path / "a.ckpt", content, [("archive/data/0", bytes(64))])
    with pytest.raises(CheckpointError, match="are missing"):
        TorchFile(path)


def test_compressed_numbers_are_refused(tmp_path):
    content = describe_tensor((4, 4), (4, 1), 16)
    entries = [("archive/data/0", bytes(2**20))]
    path = write_archive(tmp_path / "a.ckpt", content, entries, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed"):
        TorchFile(path)


def test_the_format_of_old_versions_says_how_to_convert_it(tmp_path):
    path = save(tmp_path / "a.ckpt", {"x": draw(2)}, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"before PyTorch 1\.6") as refused:
        TorchFile(path)
    assert "weights_only=True" in refused.value.fix


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04", b"GGUF" + bytes(64)])
def test_other_files_are_refused(content, tmp_path):
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a readable file of torch"):
        TorchFile(path)


def test_a_file_without_tensors_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no tensors"):
        TorchFile(save(tmp_path / "a.ckpt", {"epoch": 3}))


@pytest.mark.parametrize("part", ["archive", "pickle"])
def test_mutants_give_typed_errors_in_time(part, tmp_path):
    chance = random.Random(17)
    whole = save(tmp_path / "a.ckpt", {"state_dict": {"a": draw(3, 4), "b": draw(2).half()}})
    archive = whole.read_bytes()
    with zipfile.ZipFile(whole) as opened:
        name = next(each for each in opened.namelist() if each.endswith("data.pkl"))
        content = opened.read(name)
        rest = [
            (f"archive/data/{each.rsplit('/', 1)[1]}", opened.read(each))
            for each in opened.namelist()
            if "/data/" in each
        ]
    path, refused = tmp_path / "b.ckpt", 0
    for _ in range(400):
        if part == "archive":
            path.write_bytes(mutate(archive, chance))
        else:
            write_archive(path, mutate(content, chance), rest)
        started = time.perf_counter()
        try:
            file = TorchFile(path)
            for name in file.tensors:
                file.read(name)
        except CheckpointError:
            refused += 1
        assert time.perf_counter() - started < 5
    assert refused > 100
