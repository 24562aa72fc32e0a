"""One way to the pipeline of a checkpoint's family."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_checkpoint import tiny_sd1  # noqa: F401  (a fixture)
from tiny_flux import tiny_schnell  # noqa: F401  (a fixture)
from tokenizer_folders import write_json

import fastdeploy_diffusion
from fastdeploy_diffusion import DiffusionConfig, FluxPipeline, SDPipeline
from fastdeploy_diffusion.errors import CheckpointError, UnsupportedModelError
from fastdeploy_diffusion.pipelines.opening import open_pipeline

XL = {
    "_class_name": "StableDiffusionXLPipeline",
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def test_the_family_decides(tiny_sd1, tiny_schnell):  # noqa: F811
    assert type(open_pipeline(DiffusionConfig(model_path=tiny_sd1))) is SDPipeline
    assert type(open_pipeline(DiffusionConfig(model_path=tiny_schnell))) is FluxPipeline
    assert "FluxPipeline" in fastdeploy_diffusion.__all__
    with pytest.raises(UnsupportedModelError, match="family flux") as caught:
        SDPipeline(DiffusionConfig(model_path=tiny_schnell))
    assert caught.value.fix == "open it with FluxPipeline"


def test_a_family_without_a_pipeline(tmp_path):
    write_json(tmp_path, {"model_index.json": XL})
    for name in XL:
        (tmp_path / name).mkdir()
        write_json(tmp_path / name, {"config.json": {}, "scheduler_config.json": {}})
        stem = "model" if name.startswith("text") else "diffusion_pytorch_model"
        one = {"x": np.ones(1, np.float32)}
        save_file(one, tmp_path / name / f"{stem}.safetensors")
    with pytest.raises(
        UnsupportedModelError, match="of the family sdxl, which no pipeline"
    ) as caught:
        open_pipeline(DiffusionConfig(model_path=tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "sd1, sd2, flux" in caught.value.allowed


def test_what_is_no_checkpoint(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(CheckpointError, match="names no text_encoder"):
        open_pipeline(DiffusionConfig(model_path=tmp_path))
