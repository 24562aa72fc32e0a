"""A start with kept builds imports nothing that builds."""

import shutil

import numpy as np
import pytest
from behind_the_wall import draw_behind_the_wall
from safetensors.numpy import load_file, save_file

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.compiler.checked_weights import is_noted, note_fit
from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.pipelines.opening import open_pipeline
from fastdeploy_diffusion.predictors.network import Network

REQUEST = {"seed": 3, "num_inference_steps": 2, "height": 16, "width": 16, "output_type": "np"}


def test_a_picture_of_kept_builds_imports_nothing_that_builds(tiny_sd1, tiny_dev, tmp_path):
    cases = {
        "defaults": {"model_path": str(tiny_sd1), "engine": "openvino"},
        "passes": {
            "model_path": str(tiny_sd1),
            "engine": "onnxruntime",
            "passes": ["merge-qkv", "hoist-invariants", "fuse-silu"],
        },
        "flux": {"model_path": str(tiny_dev), "engine": "openvino"},
    }
    asked, pictures = {}, {}
    for name, options in cases.items():
        options["cache_dir"] = str(tmp_path / "cache")
        settings = REQUEST | ({"max_sequence_length": 16} if name == "flux" else {})
        asked[str(tmp_path / f"{name}.npy")] = options, settings
        with open_pipeline(DiffusionConfig(**options)) as pipeline:
            pictures[name] = pipeline.text_to_image("a cat", **settings)
    assert draw_behind_the_wall(asked, installed=True)["cached"]
    for name, picture in pictures.items():
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), picture, name)


@pytest.fixture
def checked(monkeypatch):
    """The networks whose weights were compared, one after the other."""
    networks, check = [], Network.check

    def note_and_check(self):
        networks.append(self)
        check(self)

    monkeypatch.setattr(Network, "check", note_and_check)
    return networks


def open_sd(folder, cache):
    return open_pipeline(DiffusionConfig(model_path=folder, engine="openvino", cache_dir=cache))


@pytest.fixture(scope="module")
def cache(tiny_sd1, tmp_path_factory):
    cache = tmp_path_factory.mktemp("kept") / "cache"
    with open_sd(tiny_sd1, cache) as pipeline:
        assert not cache.exists()  # until something is built
        pipeline.build(16, 16)
    return cache


def test_weights_of_kept_builds_are_not_compared_again(tiny_sd1, cache, checked):
    open_sd(tiny_sd1, cache).close()
    assert checked == []
    open_pipeline(DiffusionConfig(model_path=tiny_sd1, engine="openvino", cache=False)).close()
    assert len(checked) == 3


def test_other_weights_are_compared(tiny_sd1, cache, checked, tmp_path):
    other = shutil.copytree(tiny_sd1, tmp_path / "other")
    (file,) = (other / "vae").glob("*.safetensors")
    tensors = load_file(file)
    tensors["decoder.conv_in.bias"] = np.zeros(3, np.float32)
    save_file(tensors, file)
    for _ in range(2):
        checked.clear()
        with pytest.raises(CheckpointError, match=r"decoder\.conv_in\.bias"):
            open_sd(other, cache)
        assert len(checked) == 1


def test_a_note_that_cannot_be_written_is_left_out(tiny_sd1, cache, tmp_path):
    (tmp_path / "file").touch()
    with open_sd(tiny_sd1, cache) as pipeline:
        _, denoiser, _ = pipeline.plan_builds(16, 16)
    note_fit(denoiser.network, tmp_path / "file")
    assert is_noted(denoiser.network, cache)
    assert not is_noted(denoiser.network, tmp_path / "file")
