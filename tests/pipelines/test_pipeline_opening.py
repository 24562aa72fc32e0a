"""One way to the pipeline of a checkpoint's family."""

import json
import shutil

import pytest

import fastdeploy_diffusion
from fastdeploy_diffusion import DiffusionConfig, FluxPipeline, SDPipeline, SDXLPipeline
from fastdeploy_diffusion.checkpoints import open_checkpoint
from fastdeploy_diffusion.errors import CheckpointError, RequestError, UnsupportedModelError
from fastdeploy_diffusion.families.registry import FAMILIES
from fastdeploy_diffusion.pipelines import opening
from fastdeploy_diffusion.pipelines.opening import open_pipeline
from fastdeploy_diffusion.requests.flux_request import FluxRequest
from fastdeploy_diffusion.requests.request import GenerationRequest
from fastdeploy_diffusion.requests.sdxl_request import SDXLRequest


def test_the_family_decides(tiny_sd1, tiny_sdxl, tiny_schnell):
    folders = {SDPipeline: tiny_sd1, SDXLPipeline: tiny_sdxl, FluxPipeline: tiny_schnell}
    for right, folder in folders.items():
        config = DiffusionConfig(model_path=folder)
        opened = open_pipeline(config)
        assert type(opened) is right
        assert right.__name__ in fastdeploy_diffusion.__all__
        for wrong in folders.keys() - {right}:
            family = opened.report.family
            with pytest.raises(UnsupportedModelError, match=f"of the family {family}") as caught:
                wrong(config)
            assert str(folder) in str(caught.value)
            assert caught.value.fix == f"open it with {right.__name__}"


def test_every_family_has_a_pipeline():
    for name, family in FAMILIES.items():
        assert family.name == name
        assert family.pipeline_class.__name__ == family.pipeline_name
        assert family.pipeline_class.request_class is family.request_class


def test_a_checkpoint_is_opened_once(tiny_sd1, monkeypatch):
    config = DiffusionConfig(model_path=tiny_sd1)
    checkpoint = open_checkpoint(tiny_sd1)
    monkeypatch.setattr(opening, "open_configured", lambda *_, **__: pytest.fail("again"))
    assert open_pipeline(config, checkpoint).report.model == str(tiny_sd1)
    with pytest.raises(UnsupportedModelError, match="open it with SDPipeline"):
        FluxPipeline(config, checkpoint=checkpoint)


def test_what_is_no_checkpoint(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(CheckpointError, match="names no text_encoder"):
        open_pipeline(DiffusionConfig(model_path=tmp_path))


def test_requests_of_other_families_are_refused(tiny_sd1, tiny_sdxl, tiny_schnell):
    requests = {tiny_sd1: GenerationRequest, tiny_sdxl: SDXLRequest, tiny_schnell: FluxRequest}
    for folder, own in requests.items():
        pipeline = open_pipeline(DiffusionConfig(model_path=folder))
        for other in set(requests.values()) - {own, GenerationRequest}:
            with pytest.raises(RequestError, match=f"the request is a {other.__name__}") as caught:
                pipeline.generate(other(prompt="a dog"))
            assert own.__name__ in caught.value.allowed


def test_a_unet_of_sdxl_in_a_folder_of_sd(tiny_sd1, tiny_sdxl, tmp_path):
    folder = shutil.copytree(tiny_sd1, tmp_path / "mixed")
    shutil.copytree(tiny_sdxl / "unet", folder / "unet", dirs_exist_ok=True)
    with pytest.raises(UnsupportedModelError, match="wants the pooled text and the sizes of SDXL"):
        SDPipeline(DiffusionConfig(model_path=folder))
