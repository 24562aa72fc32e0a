"""The adapter of diffusers draws what diffusers draws, and its stages make up its pictures."""

import importlib.util
import time

import numpy as np
import pytest
from tiny_checkpoint import tiny_sd1  # noqa: F401  (a fixture)

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.benchmark.peers import ADAPTERS
from fastdeploy_diffusion.benchmark.quality import measure_psnr

PROMPTS, SEEDS, STEPS = ["a cat", "a dog"], [5, 6], 3


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("adapter", ADAPTERS / "diffusers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_task(folder, **changes):
    return {
        "model_path": str(folder),
        "scheduler": None,
        "precision": "fp32",
        "device": "cpu",
        "width": 32,
        "height": 32,
        "guidance_scale": 5.0,
        "threads": 2,
        **changes,
    }


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [None, "ddim"])
def test_it_draws_the_same_pictures_as_we_do(module, tiny_sd1, scheduler):  # noqa: F811
    theirs = {"ddim": "DDIMScheduler"}.get(scheduler)
    painter = module.Painter(make_task(tiny_sd1, scheduler=theirs))
    started = time.perf_counter()
    pictures, stages = painter.draw(PROMPTS, SEEDS, STEPS)
    seconds = time.perf_counter() - started
    config = DiffusionConfig(model_path=tiny_sd1, engine="paddle-eager", scheduler=scheduler)
    settings = {"num_inference_steps": STEPS, "guidance_scale": 5.0, "height": 32, "width": 32}
    ours = SDPipeline(config).text_to_image(PROMPTS, seed=SEEDS, **settings)
    psnr = measure_psnr(
        np.stack(list(map(np.asarray, pictures))), np.stack(list(map(np.asarray, ours)))
    )
    assert psnr is None or psnr > 50
    assert set(stages) == {"text_encoder", "step", "vae_decoder"}
    # PNDM calls the denoiser once more than it has steps.
    assert len(stages["step"]) == STEPS + (scheduler is None)
    assert min(stages["step"]) > 0
    whole = stages["text_encoder"] + sum(stages["step"]) + stages["vae_decoder"]
    assert 0.5 * seconds < whole <= seconds
    again = painter.draw(PROMPTS, SEEDS, STEPS)[1]
    assert len(again["step"]) == len(stages["step"])
    described = painter.describe()
    assert described["threads"] == 2
    assert described["scheduler"] == theirs or scheduler is None


def test_a_precision_that_it_does_not_have(module, tiny_sd1):  # noqa: F811
    with pytest.raises(ValueError, match="no int8 here"):
        module.Painter(make_task(tiny_sd1, precision="int8"))
