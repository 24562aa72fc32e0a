"""The adapter of diffusers draws what diffusers draws, and its stages make up its pictures."""

import time

import numpy as np
import pytest
from benchmark.peer_adapters import load_adapter, make_task

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.picture_quality import measure_psnr
from fastdeploy_diffusion.pipelines.opening import open_pipeline

PROMPTS, SEEDS, STEPS = ["a cat", "a dog"], [5, 6], 3


@pytest.fixture(scope="module")
def module():
    return load_adapter("diffusers")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "scheduler", "guidance_scale"),
    [("sd1", None, 5.0), ("sd1", "ddim", 5.0), ("sdxl", None, 5.0), ("flux", None, None)],
)
def test_it_draws_the_same_pictures_as_we_do(module, family, scheduler, guidance_scale, request):
    folder = request.getfixturevalue({"flux": "tiny_schnell"}.get(family, f"tiny_{family}"))
    theirs = {"ddim": "DDIMScheduler"}.get(scheduler)
    task = make_task(folder, family=family, scheduler=theirs, guidance_scale=guidance_scale)
    painter = module.Painter(task)
    shares = []
    for _ in range(3):
        started = time.perf_counter()
        pictures, stages = painter.draw(PROMPTS, SEEDS, STEPS)
        seconds = time.perf_counter() - started
        shares.append(
            (stages["text_encoder"] + sum(stages["step"]) + stages["vae_decoder"]) / seconds
        )
    config = DiffusionConfig(model_path=folder, engine="paddle-eager", scheduler=scheduler)
    settings = {"num_inference_steps": STEPS, "height": 32, "width": 32}
    if guidance_scale is not None:
        settings["guidance_scale"] = guidance_scale
    ours = open_pipeline(config).text_to_image(PROMPTS, seed=SEEDS, **settings)
    psnr = measure_psnr(
        np.stack(list(map(np.asarray, pictures))), np.stack(list(map(np.asarray, ours)))
    )
    assert psnr is None or psnr > 50
    assert set(stages) == {"text_encoder", "step", "vae_decoder"}
    # PNDM calls the denoiser once more than it has steps.
    is_pndm = painter.describe()["scheduler"] == "PNDMScheduler"
    assert len(stages["step"]) == STEPS + is_pndm
    assert min(stages["step"]) > 0
    # Other programs may take the processor between two stages, but hardly every time.
    assert 0.5 < max(shares) <= 1
    described = painter.describe()
    assert described["threads"] == 2
    assert described["scheduler"] == theirs or scheduler is None
