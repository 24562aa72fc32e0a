"""``convert`` on the command line: every format, and bad input."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from safetensors.numpy import load_file

from fastdeploy_diffusion.checkpoints import open_checkpoint

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refuse(*words):
    before = set(Path().rglob("*"))
    result = run("convert", *words, code=2)
    assert result.stdout == ""
    assert set(Path().rglob("*")) == before
    return result.stderr


def test_a_file_and_a_model(tiny_sd1):
    torch.save({"x.weight": torch.ones(3, 4).half()}, "a.ckpt")
    result = run("convert", "a.ckpt", "a.safetensors", "--to", "safetensors")
    assert result.stdout.split() == [
        *("a.safetensors", "a.safetensors", "1", "tensors", "12", "numbers", "F16")
    ]
    assert load_file("a.safetensors")["x.weight"].dtype == np.float16
    wanted = open_checkpoint(tiny_sd1)
    result = run("convert", tiny_sd1, "copy", "--to", "diffusers", "--json")
    described = json.loads(result.stdout)
    assert described["output"] == "copy"
    assert [each["name"] for each in described["written"]] == ["text_encoder", "unet", "vae"]
    assert open_checkpoint("copy").digest() == wanted.digest()
    run("convert", tiny_sd1, "arrays", "--to", "npz", "--dtype", "float16")
    names = {"unet/weights.npz", "unet/config.json", "scheduler/scheduler_config.json"}
    assert names <= {str(each.relative_to("arrays")) for each in Path("arrays").rglob("*")}


def test_bad_input(tiny_sd1):
    stderr = refuse(tiny_sd1, "out", "--to", "pdparam")
    assert "--to is 'pdparam'" in stderr
    assert "pdparams" in stderr.split("fix: ")[1]
    assert "--dtype is 'fp16'" in refuse(tiny_sd1, "out", "--to", "npz", "--dtype", "fp16")
    assert "is a folder" in refuse(tiny_sd1, "out.safetensors", "--to", "safetensors")
    vae = tiny_sd1 / "vae" / "diffusion_pytorch_model.safetensors"
    assert "a name that ends in .safetensors" in refuse(vae, "out", "--to", "safetensors")
    assert "looks like a VAE alone" in refuse(vae, "out", "--to", "diffusers")
    assert "does not exist" in refuse("nothing", "out", "--to", "diffusers")


class Attack:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_nothing_of_a_file_is_executed(tmp_path):
    with zipfile.ZipFile("a.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"x": Attack()}))
    stderr = refuse("a.ckpt", "out.safetensors", "--to", "safetensors")
    assert "system" in stderr
    assert not Path("executed").exists()
