"""Pictures decoded and encoded in tiles: with the numbers of the whole, or blended as diffusers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from fastdeploy_diffusion import DiffusionConfig, GenerationRequest, SDPipeline
from fastdeploy_diffusion.errors import ConfigError, ResourceError
from fastdeploy_diffusion.families.networks.activations import Activations
from fastdeploy_diffusion.families.networks.autoencoder import AutoencoderKLConfig
from fastdeploy_diffusion.images import METADATA_KEY
from fastdeploy_diffusion.memory_room import MemoryRoom
from fastdeploy_diffusion.picture_quality import measure_psnr
from fastdeploy_diffusion.predictors import memory_budget

# 24 x 20 latents, of which a window is 16 x 16.
REQUEST = GenerationRequest(
    prompt="a red star", seed=3, num_inference_steps=1, height=192, width=160, output_type="np"
)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(AutoencoderKLConfig, "window", 16)


@pytest.fixture(scope="module")
def open_tiled(small_models, tmp_path_factory):
    """Opens the small model with a tiling; builds are kept for all."""
    folder = tmp_path_factory.mktemp("cache")

    def open_with(tiling, **options):
        config = DiffusionConfig(
            model_path=small_models / "shapes",
            engine="paddle",
            vae_tiling=tiling,
            cache_dir=folder,
            **options,
        )
        return SDPipeline(config)

    return open_with


@pytest.fixture(scope="module")
def whole(open_tiled):
    """The picture, decoded as a whole."""
    with open_tiled("off") as pipeline:
        return pipeline.generate(REQUEST).images


def test_exact_tiles_give_the_picture_of_the_whole(open_tiled, whole):
    with open_tiled("exact") as pipeline:
        result = pipeline.generate(replace(REQUEST, output_type="pil"))
        image, decoder = result.images[0], result.report.components[-1]
    assert measure_psnr(np.asarray(image)[None], np.round(whole * 255).astype(np.uint8)) >= 60
    assert (decoder.tiling, decoder.changes_picture) == ("exact", ())
    run = json.loads(image.info[METADATA_KEY])["run"]
    assert run["components"]["vae_decoder"]["tiling"] == "exact"


def test_a_picture_that_is_no_larger_than_a_window_is_decoded_as_a_whole(open_tiled):
    with open_tiled("exact") as pipeline:
        report = pipeline.build(height=128, width=128)
        assert report.components[-1].tiling is None


def test_what_does_not_fit_as_a_whole_is_decoded_in_windows(open_tiled, whole, monkeypatch):
    room = MemoryRoom(100_000_000, "this machine")
    monkeypatch.setattr(memory_budget, "find_memory_room", lambda: room)
    monkeypatch.setattr(memory_budget, "measure_own_memory", lambda: 0)
    with open_tiled("auto") as pipeline:
        assert pipeline.generate(REQUEST).report.components[-1].tiling is None
    # A wider decoder, as far as the estimate knows.
    monkeypatch.setattr(
        AutoencoderKLConfig, "count_activations", lambda self, shapes: Activations(10**9)
    )
    with open_tiled("auto") as pipeline:
        result = pipeline.generate(REQUEST)
    assert result.report.components[-1].tiling == "exact"
    assert np.abs(result.images - whole).max() <= 1e-4
    with open_tiled("off") as pipeline, pytest.raises(ResourceError):
        pipeline.generate(REQUEST)


def test_blended_tiles_are_those_of_diffusers(open_tiled, small_models, whole):
    request = replace(REQUEST, num_images_per_prompt=2, seed=(3, 4))
    with open_tiled("blended") as pipeline:
        given = pipeline.generate(request)
        latents = pipeline.generate(replace(request, output_type="latent")).images
    vae = AutoencoderKL.from_pretrained(small_models / "shapes" / "vae").float()
    vae.enable_tiling()
    with torch.no_grad():
        decoded = vae.decode(torch.tensor(latents) / vae.config.scaling_factor).sample
    wanted = (decoded.permute(0, 2, 3, 1).numpy() / 2 + 0.5).clip(0, 1)
    assert np.abs(given.images - wanted).max() <= 1e-4
    assert np.abs(given.images[:1] - whole).max() > 1e-3  # tiles have norms of their own
    decoder = given.report.components[-1]
    assert (decoder.tiling, decoder.changes_picture) == ("blended", ("blended-tiles",))


@pytest.fixture(scope="module")
def given():
    """A picture of 192 x 160."""
    return np.random.default_rng(7).integers(0, 256, (192, 160, 3), np.uint8)


def test_given_pictures_are_encoded_in_windows_as_well(open_tiled, given):
    pictures, tilings = [], []
    for tiling in ("off", "exact"):
        request = replace(REQUEST, image=given, strength=1.0, height=None, width=None)
        with open_tiled(tiling) as pipeline:
            result = pipeline.generate(request)
        pictures.append(result.images)
        encoder, *_, decoder = result.report.components[1:]
        assert (encoder.name, decoder.name) == ("vae_encoder", "vae_decoder")
        tilings.append((encoder.tiling, decoder.tiling))
    assert tilings == [(None, None), ("exact", "exact")]
    assert measure_psnr(*(np.round(each * 255).astype(np.uint8) for each in pictures)) >= 60


def test_moments_of_blended_tiles_are_those_of_diffusers(open_tiled, small_models, given):
    images = np.ascontiguousarray(given.transpose(2, 0, 1)[None] / np.float32(127.5) - 1)
    moments = {}
    for tiling in ("off", "exact", "blended"):
        with open_tiled(tiling) as pipeline:
            encoder = pipeline.open_encoder()
            with encoder.component.lend(encoder.signature(24, 20)) as session:
                moments[tiling] = encoder.encode(session, images)
            assert encoder.component.report.tiling == (None if tiling == "off" else tiling)
    vae = AutoencoderKL.from_pretrained(small_models / "shapes" / "vae").float()
    vae.enable_tiling()
    with torch.no_grad():
        wanted = vae.encode(torch.tensor(images)).latent_dist.parameters.numpy()
    given_mean, given_deviation = np.split(moments["blended"], 2, axis=1)
    mean, deviation = np.split(wanted, 2, axis=1)
    assert np.abs(given_mean - mean).max() <= 1e-4 * np.abs(mean).max()
    assert np.abs(given_deviation.clip(-30, 20) - deviation).max() <= 1e-4 * np.abs(deviation).max()
    assert np.abs(moments["exact"] - moments["off"]).max() <= 1e-4 * np.abs(moments["off"]).max()
    assert np.abs(moments["blended"] - moments["off"]).max() > 1e-3


def test_a_picture_that_does_not_fit_as_a_whole_is_encoded_in_windows(
    open_tiled, given, monkeypatch
):
    room = MemoryRoom(100_000_000, "this machine")
    monkeypatch.setattr(memory_budget, "find_memory_room", lambda: room)
    monkeypatch.setattr(memory_budget, "measure_own_memory", lambda: 0)
    for count in ("count_activations", "count_encoder_activations"):
        monkeypatch.setattr(AutoencoderKLConfig, count, lambda *_: Activations(10**9))
    request = replace(REQUEST, image=given, strength=1.0, height=None, width=None)
    with open_tiled("auto") as pipeline:
        encoder, *_, decoder = pipeline.generate(request).report.components[1:]
    assert (encoder.tiling, decoder.tiling) == ("exact", "exact")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vae_tiling": "exact", "cache": False}, "cache False"),
        ({"vae_tiling": "blended", "enable_dynamic_shape": True}, "enable_dynamic_shape"),
        ({"vae_tiling": "exakt"}, "exact"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        DiffusionConfig(model_path="model", **options)
