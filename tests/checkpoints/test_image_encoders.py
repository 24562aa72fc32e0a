import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tiny_ip_adapter import write_tiny_image_encoder
from transformers import CLIPVisionModelWithProjection as Reference

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.checkpoints.image_encoder import open_image_encoder
from fastdeploy_diffusion.errors import CheckpointError, UnsupportedModelError
from fastdeploy_diffusion.predictors.image_encoder import EMBEDS, HIDDEN_STATES, ImageEncoder


@pytest.fixture
def folder(tmp_path):
    return write_tiny_image_encoder(tmp_path / "image_encoder")


@pytest.mark.parametrize("engine", ["paddle-eager", "openvino", "onnxruntime"])
def test_it_is_built_proven_and_equal_to_transformers(engine, folder, tmp_path):
    config = DiffusionConfig(model_path=tmp_path, engine=engine)
    opened = open_image_encoder(folder)
    encoder = ImageEncoder(opened, config, config.component("text_encoder"), "image_encoder")
    encoder.component.check_weights()
    pixels = np.random.default_rng(5).standard_normal((2, 3, 32, 32)).astype(np.float32)
    with encoder.component.lend(encoder.signature()) as session:
        given = session.run(pixel_values=pixels)
    report = encoder.component.report
    encoder.component.close()
    reference = Reference.from_pretrained(folder).eval()
    with torch.no_grad():
        wanted = reference(torch.tensor(pixels), output_hidden_states=True)
    for name, other in ((EMBEDS, wanted.image_embeds), (HIDDEN_STATES, wanted.hidden_states[-2])):
        error = np.abs(given[name] - other.numpy()).max() / np.abs(other.numpy()).max()
        assert error <= 2e-5
    assert report.engine == engine
    assert report.relative_error <= report.tolerance


def test_what_is_no_vision_tower_is_refused(folder, tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        open_image_encoder(tmp_path / "missing")
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        open_image_encoder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    for key, value, error, message in (
        ("num_hidden_layers", 3, CheckpointError, "num_hidden_layers makes 3 layers"),
        ("architectures", ["CLIPTextModel"], UnsupportedModelError, "CLIPTextModel"),
        ("hidden_act", "relu", UnsupportedModelError, r"config\.json: .*hidden_act"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(error, match=message):
            open_image_encoder(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is not a readable file"):
        open_image_encoder(folder)


def test_weights_of_another_size_are_refused(folder, tmp_path):
    weights = load_file(folder / "model.safetensors")
    weights["visual_projection.weight"] = np.zeros((9, 24), np.float32)
    save_file(weights, folder / "model.safetensors")
    config = DiffusionConfig(model_path=tmp_path, engine="paddle-eager")
    choice = config.component("text_encoder")
    encoder = ImageEncoder(open_image_encoder(folder), config, choice, "image_encoder")
    with pytest.raises(CheckpointError, match=r"visual_projection\.weight"):
        encoder.component.check_weights()
