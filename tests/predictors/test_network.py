"""What a network of a checkpoint is called."""

import pytest

from fastdeploy_diffusion.checkpoints import TensorSource
from fastdeploy_diffusion.predictors.network import Network


@pytest.mark.parametrize(
    ("origin", "model"),
    [
        ("/models/sd15/unet", "sd15"),
        ("/models/dreamshaper.v8.safetensors", "dreamshaper.v8"),
        ("/hub/models--runwayml--stable-diffusion-v1-5/snapshots/39593d/vae", None),
    ],
)
def test_a_model_is_called_by_its_folder_its_file_or_its_name_on_the_hub(origin, model):
    found = Network("", None, TensorSource(origin, {})).model
    assert found == (model or "runwayml/stable-diffusion-v1-5")


def test_a_model_in_the_working_folder_is_called_by_that(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Network("", None, TensorSource("unet", {})).model == tmp_path.name
