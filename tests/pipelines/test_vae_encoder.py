"""The VAE's encoder: what diffusers' encodes, on engines, and built only where it is needed."""

import numpy as np
import pytest
import torch
from diffusers_folder import write_diffusers_folder
from flux_folder import write_flux_folder
from safetensors.numpy import load_file, save_file
from sdxl_folder import write_sdxl_folder

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.compiler.bundle_writer import write_bundle
from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.noise import TorchGenerator
from fastdeploy_diffusion.pipelines.opening import open_pipeline

LARGEST_ERROR = 1e-4
FOLDERS = {
    "sd1": lambda folder: write_diffusers_folder(folder, "sd1", seed=20261130),
    "sdxl": lambda folder: write_sdxl_folder(folder, forces_zeros=True, seed=20261130),
    "flux": lambda folder: write_flux_folder(folder, is_dev=True, seed=20261130),
}


def encode(pipeline, images, seeds):
    """Build the encoder alone, and encode (B, 3, H, W) to moments and latents."""
    encoder = pipeline.open_encoder()
    scale = encoder.config.downscale
    signature = encoder.signature(images.shape[2] // scale, images.shape[3] // scale)
    with encoder.component.lend(signature) as session:
        moments = encoder.encode(session, images)
    return moments, encoder.sample(moments, [TorchGenerator(seed) for seed in seeds])


@pytest.mark.parametrize("family", FOLDERS)
@pytest.mark.parametrize("engine", ["paddle", "openvino", "onnxruntime"])
def test_latents_are_those_of_diffusers(tmp_path_factory, family, engine):
    folder = tmp_path_factory.mktemp("folder")
    vae = FOLDERS[family](folder).vae
    images = np.random.default_rng(5).uniform(-1, 1, (2, 3, 10, 14)).astype(np.float32)
    with torch.no_grad():
        wanted = vae.encode(torch.tensor(images)).latent_dist
    noise = [torch.randn(wanted.mean.shape[1:], generator=_seed(each)) for each in (7, 8)]
    sampled = wanted.mean + wanted.std * torch.stack(noise)
    sampled = (sampled - (vae.config.shift_factor or 0)) * vae.config.scaling_factor
    with open_pipeline(DiffusionConfig(model_path=folder / "model", engine=engine)) as pipeline:
        moments, latents = encode(pipeline, images, (7, 8))
        report = pipeline.component("vae_encoder").report
    assert relative_error(moments, wanted.parameters) <= LARGEST_ERROR
    assert relative_error(latents, sampled) <= LARGEST_ERROR
    assert np.abs(latents[0] - latents[1]).max() > 0.1
    assert report.relative_error <= report.tolerance


def _seed(number):
    return torch.Generator().manual_seed(number)


def relative_error(given, wanted):
    wanted = wanted.numpy()
    assert given.shape == wanted.shape
    return float(np.abs(given - wanted).max() / np.abs(wanted).max())


def test_it_is_built_where_it_is_asked_for(tiny_sd1):
    def names(report):
        return [each.name for each in report.components]

    config = DiffusionConfig(model_path=tiny_sd1, engine="openvino")
    with open_pipeline(config) as pipeline:
        three = names(pipeline.build())
        four = pipeline.build(encoder=True)
        assert three == ["text_encoder", "denoiser", "vae_decoder"]
        assert names(four) == ["text_encoder", "vae_encoder", "denoiser", "vae_decoder"]
        assert four.components[1].relative_error is not None
        planned = pipeline.plan_builds(encoder=True)
        assert [each.name for each in planned] == names(four)
    with open_pipeline(config) as again:
        assert again.build(encoder=True).components[1].cached


def test_it_stays_in_floating_point_where_int8_is_asked_for(tiny_sd1):
    config = DiffusionConfig(model_path=tiny_sd1, engine="openvino", precision="int8-weights")
    pipeline = open_pipeline(config)
    assert pipeline.open_encoder().component.report.precision in ("fp32", "bf16")
    assert [each.name for each in pipeline.list_calibrated()] == [
        "text_encoder",
        "denoiser",
        "vae_decoder",
    ]


def test_a_checkpoint_without_it_draws_texts(tiny_sd1, tmp_path):
    folder = copy_without(tiny_sd1, tmp_path / "model", ("encoder.", "quant_conv."))
    config = DiffusionConfig(model_path=folder, engine="openvino")
    whole = DiffusionConfig(model_path=tiny_sd1, engine="openvino")
    request = {"seed": 3, "num_inference_steps": 1, "output_type": "np"}
    with open_pipeline(config) as pipeline, open_pipeline(whole) as other:
        given, wanted = (each.text_to_image("a cat", **request) for each in (pipeline, other))
        np.testing.assert_array_equal(given, wanted)
        with pytest.raises(CheckpointError, match=r"no weights of the autoencoder's encoder") as e:
            pipeline.build(encoder=True)
    assert "text_to_image" in e.value.allowed


def test_a_checkpoint_with_half_of_it_is_damaged(tiny_sd1, tmp_path):
    folder = copy_without(tiny_sd1, tmp_path / "model", ("encoder.conv_in.",))
    pipeline = open_pipeline(DiffusionConfig(model_path=folder, engine="openvino"))
    with pytest.raises(CheckpointError, match=r"encoder\.conv_in\.weight"):
        pipeline.build(encoder=True)


def copy_without(source, folder, prefixes):
    """Copy a checkpoint, but for some weights of its VAE."""
    for file in source.rglob("*"):
        if file.is_file():
            target = folder / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    kept = {
        name: value for name, value in load_file(weights).items() if not name.startswith(prefixes)
    }
    save_file(kept, weights)
    return folder


def test_a_bundle_has_it_on_request(tiny_sd1, tmp_path):
    images = np.random.default_rng(2).uniform(-1, 1, (1, 3, 16, 16)).astype(np.float32)
    config = DiffusionConfig(model_path=tiny_sd1, engine="openvino")
    with open_pipeline(config) as pipeline:
        wanted, _ = encode(pipeline, images, (1,))
        write_bundle(pipeline, [(16, 16)], tmp_path / "with", encoder=True)
        write_bundle(pipeline, [(16, 16)], tmp_path / "without")
    with open_pipeline(DiffusionConfig(model_path=tmp_path / "with")) as bundled:
        given, _ = encode(bundled, images, (1,))
        assert bundled.text_to_image("a cat", num_inference_steps=1).size == (16, 16)
    np.testing.assert_array_equal(given, wanted)
    bundled = open_pipeline(DiffusionConfig(model_path=tmp_path / "without"))
    with bundled, pytest.raises(CheckpointError, match="has no vae_encoder") as caught:
        bundled.build(encoder=True)
    assert caught.value.fix.endswith("bundle --encoder")
