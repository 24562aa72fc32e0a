"""A tiny decoder in place of the model's own, and previews of steps that it draws."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from drawn_parameters import draw_reference_parameters
from original_tiny_vae import make_original_decoder
from safetensors.torch import save_file

from fastdeploy_diffusion import DiffusionConfig, FluxPipeline, GenerationRequest, SDPipeline
from fastdeploy_diffusion.errors import CheckpointError, ConfigError
from fastdeploy_diffusion.images import METADATA_KEY
from fastdeploy_diffusion.predictors.packing import unpack
from fastdeploy_diffusion.requests.flux_request import FluxRequest

SETTINGS = {"prompt": "a red star", "seed": 3, "num_inference_steps": 3, "output_type": "np"}
SIZE = {"height": 64, "width": 48}


def write_tiny(folder, channels, levels=4):
    """Write a tiny autoencoder of random weights; returns diffusers' own."""
    tiny = AutoencoderTiny(
        latent_channels=channels,
        encoder_block_out_channels=(8,) * levels,
        decoder_block_out_channels=(8,) * levels,
        num_encoder_blocks=(1,) * levels,
        num_decoder_blocks=(1,) * levels,
    ).eval()
    draw_reference_parameters(tiny, 5, 1.0)
    tiny.save_pretrained(folder)
    return tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a tiny autoencoder for Stable Diffusion, and diffusers' own."""
    folder = tmp_path_factory.mktemp("tiny")
    return folder, write_tiny(folder, 4)


@pytest.fixture(scope="module")
def open_with(small_models, tiny):
    def open_with(**options):
        config = DiffusionConfig(
            **{
                "model_path": small_models / "shapes",
                "engine": "paddle",
                "tiny_vae_path": tiny[0],
                **options,
            }
        )
        return SDPipeline(config)

    return open_with


def decode(tiny, latents):
    """Decode as the pipelines of diffusers do."""
    with torch.no_grad():
        images = tiny.decode(torch.tensor(latents) / tiny.config.scaling_factor).sample
    return (images.permute(0, 2, 3, 1).numpy() / 2 + 0.5).clip(0, 1)


def test_it_draws_what_diffusers_draws_with_it(open_with, tiny):
    request = GenerationRequest(**SETTINGS, **SIZE, num_images_per_prompt=2)
    with open_with(vae_decoder="tiny") as pipeline:
        given = pipeline.generate(request)
        latents = pipeline.generate(replace(request, output_type="latent")).images
        image = pipeline.generate(replace(request, output_type="pil")).images[0]
    assert np.abs(given.images - decode(tiny[1], latents)).max() <= 1e-4
    decoder = given.report.components[-1]
    assert decoder.changes_picture == ("tiny-decoder",)
    run = json.loads(image.info[METADATA_KEY])["run"]
    assert run["components"]["vae_decoder"]["changes_picture"] == ["tiny-decoder"]
    assert len(run["tiny_vae_digest"]) == 64


def test_it_is_read_from_a_file_of_the_original_code(open_with, tmp_path):
    original = make_original_decoder(channels=4, width=8)
    save_file(original.state_dict(), tmp_path / "taesd_decoder.safetensors")
    request = GenerationRequest(**SETTINGS, **SIZE)
    path = tmp_path / "taesd_decoder.safetensors"
    with open_with(vae_decoder="tiny", tiny_vae_path=path) as pipeline:
        given = pipeline.generate(request)
        latents = pipeline.generate(replace(request, output_type="latent")).images
    with torch.no_grad():
        wanted = original(torch.tensor(latents)).permute(0, 2, 3, 1).numpy().clip(0, 1)
    assert np.abs(given.images - wanted).max() <= 1e-4


def test_previews_are_decoded_when_they_are_asked_for(open_with, tiny):
    request = GenerationRequest(**SETTINGS, **SIZE)
    with open_with(scheduler="euler") as pipeline:
        *events, last = pipeline.stream(request)
        (image,) = events[0].preview()
        (final,) = last.preview()
        # What the last step predicts is what it makes: the last timestep has no noise left.
        wanted = decode(tiny[1], last.latents)[0]
        plain = pipeline.generate(replace(request, output_type="np")).images
    assert image.size == (48, 64)
    assert np.abs(np.asarray(final) / 255 - wanted).max() <= 1 / 255
    assert np.abs(np.asarray(image) / 255 - wanted).max() > 2 / 255
    assert np.array_equal(last.result.images, plain)


def test_without_a_tiny_autoencoder_there_are_no_previews(open_with):
    with open_with(tiny_vae_path=None) as pipeline:
        (event,) = pipeline.stream(GenerationRequest(**{**SETTINGS, "num_inference_steps": 1}))
    assert event.preview is None


@pytest.mark.parametrize("sampler", ["euler", "heun", "lcm", "dpmpp_2m"])
def test_previews_of_other_schedulers(open_with, tiny, sampler):
    with open_with(scheduler=sampler) as pipeline:
        *_, last = pipeline.stream(GenerationRequest(**SETTINGS, **SIZE))
        (image,) = last.preview()
    difference = np.asarray(image) / 255 - decode(tiny[1], last.latents)[0]
    assert np.abs(difference).mean() <= 0.02


def test_previews_of_flux(small_models, tmp_path):
    tiny = write_tiny(tmp_path, 4)
    config = DiffusionConfig(
        model_path=small_models / "flux-shapes", engine="paddle", tiny_vae_path=tmp_path
    )
    with FluxPipeline(config) as pipeline:
        request = FluxRequest(**SETTINGS, **SIZE, max_sequence_length=16)
        *_, last = pipeline.stream(request)
        (image,) = last.preview()
    latents = unpack(last.latents, 4, 3)
    assert np.abs(np.asarray(image) / 255 - decode(tiny, latents)[0]).max() <= 1 / 255


def test_one_of_other_latents_is_refused(open_with, tmp_path):
    write_tiny(tmp_path, 16)
    with pytest.raises(CheckpointError, match="16 channels"):
        open_with(tiny_vae_path=tmp_path, vae_decoder="tiny")


def test_what_is_no_tiny_autoencoder_is_refused(open_with, small_models):
    with pytest.raises(CheckpointError, match="AutoencoderKL"):
        open_with(tiny_vae_path=small_models / "shapes" / "vae", vae_decoder="tiny")


def test_its_path_is_missing():
    with pytest.raises(ConfigError, match="tiny_vae_path"):
        DiffusionConfig(model_path="model", vae_decoder="tiny")
