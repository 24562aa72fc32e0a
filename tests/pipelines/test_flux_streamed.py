"""``memory="streamed"``: the same picture, on the engines that it is for."""

import numpy as np
import pytest
from flux_folder import write_flux_folder
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.errors import ConfigError, EngineUnavailableError
from fastdeploy_diffusion.pipelines.flux import FluxPipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("dev")
    write_flux_folder(root, is_dev=True, seed=3)
    return root / "model"


def open_flux(folder, engine, **options):
    choice = {"engine": "paddle-eager", "denoiser": {"engine": engine}, "cpu_fallback": False}
    return FluxPipeline(DiffusionConfig(model_path=folder, **choice, **options))


@pytest.mark.slow
def test_the_picture_is_the_resident_one(folder):
    settings = {"num_inference_steps": 3, "seed": 4, "height": 20, "output_type": "np"}
    wanted = open_flux(folder, "paddle-eager").text_to_image("a dog", **settings)
    streamed = open_flux(folder, "openvino", memory="streamed")
    given = streamed.text_to_image("a dog", **settings)
    assert 10 * np.log10(1 / np.mean((given - wanted) ** 2)) >= 50
    assert streamed.report.memory == "streamed"
    denoiser = streamed.report.components[2]
    assert (denoiser.name, denoiser.engine) == ("denoiser", "openvino")
    assert 0 < denoiser.relative_error <= 1e-4
    assert streamed.component("denoiser").pool.sessions == []  # closed with its stage


@pytest.mark.parametrize("engine", ["paddle", "paddle-eager"])
def test_an_engine_that_takes_no_weights_is_refused(folder, engine):
    with pytest.raises(EngineUnavailableError, match=f"not streamed to {engine} on cpu"):
        open_flux(folder, engine, memory="streamed")


def test_stable_diffusion_has_no_blocks_to_stream(tmp_path):
    model = write_tiny_sd(tmp_path / "model")
    with pytest.raises(ConfigError, match="memory is 'streamed'"):
        SDPipeline(DiffusionConfig(model_path=model, engine="openvino", memory="streamed"))
