"""FluxPipeline: what it refuses, what it warns of, what it writes beside a picture."""

import json
import shutil

import numpy as np
import pytest
from diffusers_folder import write_diffusers_folder
from flux_folder import write_flux_folder

from fastdeploy_diffusion import DiffusionConfig, GenerationRequest, SDPipeline
from fastdeploy_diffusion.errors import (
    CheckpointError,
    ConfigError,
    RequestError,
    UnsupportedModelError,
)
from fastdeploy_diffusion.images import read_settings
from fastdeploy_diffusion.pipelines.flux import FluxPipeline
from fastdeploy_diffusion.predictors.packing import list_positions, pack, unpack
from fastdeploy_diffusion.requests.flux_request import plan_flux


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """By whether it is like dev: the folder of a checkpoint."""
    found = {}
    for is_dev in (True, False):
        folder = tmp_path_factory.mktemp("dev" if is_dev else "schnell")
        write_flux_folder(folder, is_dev=is_dev, seed=5)
        found[is_dev] = folder / "model"
    return found


def open_flux(folder, **options):
    return FluxPipeline(DiffusionConfig(model_path=folder, **options))


def plan(pipeline, **settings):
    """What a request would do, without doing it."""
    return pipeline._plan(pipeline.request_class(prompt="a dog", **settings))


@pytest.mark.parametrize(
    ("is_dev", "settings", "words"),
    [
        (False, {"guidance_scale": 3.5}, r"guidance_scale is 3.5, and \S+model was not distilled"),
        (True, {"height": 18}, "height is 18"),
        (True, {"width": 30}, "multiples of 4"),
        (True, {"max_sequence_length": 513}, "max_sequence_length is 513"),
        (True, {"max_sequence_length": 0}, "max_sequence_length is 0"),
        (True, {"true_cfg_scale": -1.0}, "true_cfg_scale is -1.0"),
        (True, {"true_cfg_scale": True}, "true_cfg_scale is True"),
        (True, {"sigmas": [0.5, 0.7]}, r"sigmas are \[0.5, 0.7\]"),
        (True, {"sigmas": []}, r"sigmas are \[\]"),
        (True, {"sigmas": 3}, "sigmas are 3"),
        (True, {"sigmas": [1.0, 0.5], "num_inference_steps": 3}, "there are 2 sigmas"),
        (True, {"prompt_2": ["a", "b"]}, "prompt_2 has 2 texts for 1 prompts"),
        (True, {"prompt_2": 7}, "prompt_2 is 7"),
        (True, {"eta": 0.5}, "eta is 0.5, and has no effect on Flux"),
        (True, {"clip_skip": 1}, "clip_skip is 1"),
        (True, {"scheduler": "euler"}, "scheduler is 'euler', and has no effect on Flux"),
        (True, {"guidance_rescale": 0.5}, "guidance_rescale is 0.5"),
        (True, {"latents": np.zeros((1, 4, 64, 64), np.float32)}, "latents have the shape"),
    ],
)
def test_requests_that_are_refused(folders, is_dev, settings, words):
    with pytest.raises(RequestError, match=words):
        plan(open_flux(folders[is_dev]), **settings)


def test_unknown_arguments_are_refused(folders):
    with pytest.raises(RequestError, match="true_cfg"):
        open_flux(folders[True]).text_to_image("a dog", true_cfg=3.0)


def test_guidance_of_the_configuration_is_refused_by_schnell(folders):
    pipeline = open_flux(folders[False], defaults={"guidance_scale": 3.5})
    with pytest.raises(RequestError, match=r"defaults\.guidance_scale"):
        plan(pipeline)


def test_defaults_are_those_of_the_published_models(folders):
    dev, schnell = (plan(open_flux(folders[is_dev])) for is_dev in (True, False))
    assert (dev.num_inference_steps, dev.guidance_scale, dev.max_sequence_length) == (28, 3.5, 512)
    assert (schnell.num_inference_steps, schnell.max_sequence_length) == (4, 256)
    assert not dev.is_guided
    assert not schnell.is_guided
    assert (dev.height, dev.width) == (256, 256)  # 128 latents, twice as large in this small model


def test_guidance_that_has_no_effect_is_a_warning(folders):
    pipeline = open_flux(folders[True])
    with pytest.warns(UserWarning, match="negative_prompt has no effect with true_cfg_scale=1"):
        assert not plan(pipeline, negative_prompt="ugly").is_guided
    with pytest.warns(UserWarning, match="has no effect without negative_prompt"):
        assert not plan(pipeline, true_cfg_scale=4.0).is_guided


@pytest.mark.slow
def test_pictures_can_be_drawn_again_from_their_metadata(folders):
    pipeline = open_flux(folders[False])
    picture = pipeline.text_to_image(
        "a dog",
        prompt_2="a large dog",
        negative_prompt="ugly",
        true_cfg_scale=2.0,
        sigmas=[1.0, 0.4],
        seed=3,
        height=16,
        width=24,
        max_sequence_length=24,
    )
    settings = read_settings(picture)
    assert settings["prompt_2"] == "a large dog"
    assert "guidance_scale" not in settings
    again = pipeline.text_to_image(**settings)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(picture))
    plain = GenerationRequest(prompt="a dog", num_inference_steps=1, height=16, width=24)
    assert plan_flux(plain, pipeline.config.defaults, pipeline._limits).prompts_2 == ("a dog",)
    assert pipeline.report.family == "flux"
    assert {each.name for each in pipeline.report.components} == {
        "text_encoder",
        "text_encoder_2",
        "denoiser",
        "vae_decoder",
    }


@pytest.mark.parametrize(
    "options",
    [{"scheduler": "euler"}, {"prediction_type": "epsilon"}, {"enable_dynamic_shape": True}],
)
def test_options_that_flux_does_not_have(folders, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        open_flux(folders[True], **options)


def test_parts_that_do_not_fit_together(folders, tmp_path):
    folder = shutil.copytree(folders[True], tmp_path / "model")
    for component, key, value, words in (
        ("text_encoder_2", "d_model", 48, "joint_attention_dim"),
        ("text_encoder_2", "feed_forward_proj", "relu", "feed_forward_proj"),
        ("text_encoder_2", "vocab_size", 30, "tokenizer_2"),
        ("vae", "latent_channels", 16, "in_channels"),
    ):
        file = folder / component / "config.json"
        config = json.loads(file.read_text())
        file.write_text(json.dumps({**config, key: value}))
        with pytest.raises(UnsupportedModelError, match=words) as caught:
            open_flux(folder)
        assert str(folder) in str(caught.value)
        assert caught.value.fix
        file.write_text(json.dumps(config))


def test_families_are_not_mixed_up(folders, tmp_path):
    with pytest.raises(UnsupportedModelError, match="family flux"):
        SDPipeline(DiffusionConfig(model_path=folders[True]))
    write_diffusers_folder(tmp_path, "sd1", seed=1)
    with pytest.raises(UnsupportedModelError, match="SDPipeline"):
        open_flux(tmp_path / "model")


def test_wrong_tokenizers_are_named(folders, tmp_path):
    with pytest.raises(CheckpointError, match="lacks tokenizer or tokenizer_2"):
        open_flux(folders[True], tokenizer_path=tmp_path)
    shutil.copytree(folders[True] / "tokenizer", tmp_path / "tokenizer")
    shutil.copytree(folders[True] / "tokenizer", tmp_path / "tokenizer_2")
    with pytest.raises(CheckpointError, match="T5 tokenizer"):
        open_flux(folders[True], tokenizer_path=tmp_path)


def test_packing_comes_back():
    latents = np.random.default_rng(0).standard_normal((2, 3, 4, 6), np.float32)
    packed = pack(latents)
    assert packed.shape == (2, 6, 12)
    np.testing.assert_array_equal(packed[0, 4], latents[0, :, 2:4, 2:4].ravel())
    np.testing.assert_array_equal(unpack(packed, 2, 3), latents)
    assert list_positions(2, 3)[4].tolist() == [0, 1, 1]
