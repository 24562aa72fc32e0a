"""What somebody who comes from diffusers writes first: it works, or says what to write."""

import inspect
from dataclasses import fields
from typing import Literal, get_type_hints

import numpy as np
import pytest
from tiny_checkpoint import write_tiny_sd
from typing_extensions import get_overloads

from fastdeploy_diffusion import (
    DiffusionConfig,
    DiffusionError,
    FluxPipeline,
    GenerationRequest,
    SDPipeline,
    SDXLPipeline,
)
from fastdeploy_diffusion.errors import ConfigError, RequestError, UnknownAttributeError
from fastdeploy_diffusion.hints import HINTS
from fastdeploy_diffusion.requests.request import PICTURE_FIELDS
from fastdeploy_diffusion.requests.settings import FluxSettings, SDXLSettings, Settings

SETTINGS = {"seed": 1, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_sd(tmp_path_factory.mktemp("checkpoint") / "model")


@pytest.fixture(scope="module")
def pipeline(folder):
    return SDPipeline(folder, scheduler="ddim", engine="paddle-eager")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: SDPipeline(str(path), threads=1),
        lambda path: SDPipeline(path, threads=1),
        lambda path: SDPipeline(model_path=path, threads=1),
        lambda path: SDPipeline({"model_path": str(path)}, threads=1),
        lambda path: SDPipeline({"model_path": path, "threads": 1}),
        lambda path: SDPipeline(config=DiffusionConfig(model_path=path, threads=1)),
        lambda path: SDPipeline.from_pretrained(path, threads=1),
        lambda path: SDPipeline.from_single_file(str(path), threads=1),
    ],
)
def test_a_pipeline_is_made_from_what_people_give(folder, make):
    assert make(folder).config == DiffusionConfig(model_path=folder, threads=1)


@pytest.mark.parametrize(
    ("given", "options", "problem", "fix"),
    [
        (None, {}, "model_path is missing", "model_path=…"),
        (3, {}, "a pipeline cannot be made from a int", "DiffusionConfig(model_path="),
        ("shapes", {}, "'shapes' is the name of a preset", "DiffusionConfig.from_preset('shapes')"),
        ({"model_path": "m"}, {"model_path": "n"}, "model_path is given twice", "leave one"),
        (DiffusionConfig(model_path="m"), {"threads": 1}, "options beside it: threads", "{'thre"),
        ("m", {"torch_dtype": "float16"}, "unknown option 'torch_dtype'", "'precision'"),
        ("m", {"safety_checker": 1}, "unknown option 'safety_checker'", "there is none here"),
        ("m", {"lora": "x"}, "unknown option 'lora'", "pipeline.load_lora("),
        ("m", {"upscale": 2}, "'upscale': upscaling by a network is not there yet", ""),
        ("m", {"use_safetensors": True}, "unknown option 'use_safe", ".safetensors files only"),
    ],
)
def test_what_a_pipeline_cannot_be_made_from_is_explained(given, options, problem, fix):
    with pytest.raises(ConfigError) as caught:
        SDPipeline(given, **options)
    assert problem in caught.value.problem
    assert fix in caught.value.fix


def test_a_prompt_is_enough(pipeline):
    wanted = np.asarray(pipeline.text_to_image("a cat", **SETTINGS))
    for result in (
        pipeline("a cat", **SETTINGS),
        pipeline.generate("a cat", **SETTINGS),
        list(pipeline.stream("a cat", **SETTINGS))[-1].result,
    ):
        (image,) = result.images
        assert (np.asarray(image) == wanted).all()
    assert len(pipeline(["a cat", "a dog"], **SETTINGS).images) == 2


def test_a_request_and_settings_beside_it_are_refused(pipeline):
    with pytest.raises(RequestError, match="settings beside it: seed"):
        pipeline.generate(GenerationRequest(prompt="a cat"), seed=1)
    with pytest.raises(RequestError, match="1 settings are given without their names"):
        pipeline.text_to_image("a cat", 512)


def test_the_end_of_a_block_closes_the_pipeline(folder, pipeline):
    with SDPipeline(folder, engine="paddle-eager") as opened:
        opened.build()
        assert len(opened.component("denoiser").pool.sessions) == 1
    assert opened.component("denoiser").pool.sessions == []


@pytest.mark.parametrize("name", [name for name in HINTS if not hasattr(SDPipeline, name)])
def test_a_name_of_diffusers_says_what_to_write(pipeline, name):
    assert not hasattr(pipeline, name)
    with pytest.raises(UnknownAttributeError) as caught:
        getattr(pipeline, name)
    assert isinstance(caught.value, DiffusionError)
    assert isinstance(caught.value, AttributeError)
    assert HINTS[name].missing in caught.value.problem
    assert caught.value.fix == HINTS[name].fix != ""


def test_other_names_are_refused_with_the_nearest(pipeline):
    with pytest.raises(UnknownAttributeError, match="has no 'text2image'") as caught:
        _ = pipeline.text2image
    assert caught.value.fix == "did you mean 'text_to_image'?"
    assert not hasattr(pipeline, "_nothing")


@pytest.mark.parametrize("name", ["scheduler", "config", "report", "unet", "safety_checker", "my"])
def test_nothing_can_be_set_without_effect(pipeline, name):
    with pytest.raises(UnknownAttributeError, match=f"{name} cannot be set") as caught:
        setattr(pipeline, name, "EulerDiscreteScheduler")
    if name == "scheduler":
        assert "scheduler='euler'" in caught.value.fix


@pytest.mark.parametrize(
    ("argument", "problem", "fix"),
    [
        ("init_image", "unknown argument 'init_image'", "image=…"),
        ("mask_image", "unknown argument 'mask_image'", "mask=…"),
        ("generator", "unknown argument 'generator'", "seed=…"),
        ("num_images", "unknown argument 'num_images'", "did you mean 'num_images_per_prompt'?"),
    ],
)
def test_an_argument_of_diffusers_says_what_to_write(pipeline, argument, problem, fix):
    with pytest.raises(RequestError) as caught:
        pipeline("a cat", **{argument: None})
    assert caught.value.problem == problem
    assert caught.value.fix.startswith(fix)


PIPELINES = [(SDPipeline, Settings), (SDXLPipeline, SDXLSettings), (FluxPipeline, FluxSettings)]


@pytest.mark.parametrize(("pipeline_class", "settings"), PIPELINES)
def test_the_signature_is_the_request(pipeline_class, settings):
    shown = inspect.signature(pipeline_class.text_to_image).parameters
    own, prompt, *others = shown.values()
    assert (own.name, prompt.name, prompt.kind.name) == ("self", "prompt", "POSITIONAL_OR_KEYWORD")
    every = fields(pipeline_class.request_class)
    asked = {each.name: each for each in every if each.name not in PICTURE_FIELDS}
    assert [prompt.name, *(each.name for each in others)] == list(asked)
    for each in others:
        assert each.kind.name == "KEYWORD_ONLY"
        assert each.default == asked[each.name].default
        assert each.annotation == asked[each.name].type
    # What type checkers read says the same, and what editors show first: one picture's settings.
    (first, *_) = get_overloads(pipeline_class.text_to_image)
    one = {"num_images_per_prompt": Literal[1], "output_type": Literal["pil"], "prompt": str}
    explicit = inspect.signature(first).parameters
    assert set(explicit) == {*shown}
    for name, each in explicit.items():
        if name != "self":
            assert each.annotation == one.get(name, asked[name].type)
            assert each.default == shown[name].default
    decided = {"prompt", "num_images_per_prompt", "output_type", *PICTURE_FIELDS}
    types = get_type_hints(pipeline_class.request_class)
    assert get_type_hints(settings) == {k: v for k, v in types.items() if k not in decided}


def test_a_pipeline_shows_its_model_and_engines(folder):
    shown = repr(SDPipeline(folder, engine="paddle-eager"))
    assert shown.startswith(
        f"<SDPipeline {folder} (sd1); text_encoder: paddle-eager on cpu in fp32"
    )
    assert shown.endswith("vae_decoder: paddle-eager on cpu in fp32>")
