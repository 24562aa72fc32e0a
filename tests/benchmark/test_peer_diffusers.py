"""The adapter of diffusers draws what diffusers draws, and its stages make up its pictures."""

import time

import numpy as np
import pytest
from benchmark.peer_adapters import load_adapter, make_task
from tiny_checkpoint import tiny_sd1  # noqa: F401  (a fixture)

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.benchmark.quality import measure_psnr

PROMPTS, SEEDS, STEPS = ["a cat", "a dog"], [5, 6], 3


@pytest.fixture(scope="module")
def module():
    return load_adapter("diffusers")


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
