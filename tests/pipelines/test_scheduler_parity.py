"""Whole pictures of every scheduler, of plans of one's own and of old folders equal diffusers'."""

import importlib.util
import json
import warnings

import diffusers
import numpy as np
import pytest
import torch
from diffusers_folder import write_diffusers_folder
from test_sd_parity import psnr

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.images import read_settings
from fastdeploy_diffusion.schedulers import SCHEDULERS

# dB. Random noise in float32 leaves 100 and more.
LEAST = 100
# The times of the one's noise are rounded, here and there the other way; what diffusers subtracts
# for the other cancels in float32, the more the fewer steps there are.
LEAST_OF = {"dpm-solver-sde": 50, "kdpm2-ancestral": 50}
SEED = 12
SETTINGS = {"num_inference_steps": 6, "guidance_scale": 5.0, "output_type": "np"}
NEEDED = {"lms": "scipy", "dpm-solver-sde": "torchsde"}
TIMESTEPS = [980, 731, 455, 180, 24]
SIGMAS = [14.6, 3.7, 1.3, 0.4, 0.0]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(folder, our pipeline, diffusers' pipeline), with random weights."""
    folder = tmp_path_factory.mktemp("schedulers")
    reference = write_diffusers_folder(folder, "sd1", seed=20261130)
    folder = folder / "model"
    with SDPipeline(DiffusionConfig(model_path=folder, engine="paddle")) as pipeline:
        yield folder, pipeline, reference


def draw_reference(reference, **settings):
    generator = torch.Generator().manual_seed(SEED)
    settings = {**SETTINGS, **settings}
    if {"timesteps", "sigmas"} & settings.keys():
        del settings["num_inference_steps"]
    return reference("a red circle", generator=generator, height=24, width=40, **settings).images


def draw(pipeline, **settings):
    settings = {**SETTINGS, **settings}
    if {"timesteps", "sigmas"} & settings.keys():
        del settings["num_inference_steps"]
    return pipeline.text_to_image("a red circle", seed=SEED, height=24, width=40, **settings)


@pytest.mark.parametrize("name", sorted({*SCHEDULERS} - {"edm-euler"}))
def test_every_scheduler(both, name):
    folder, pipeline, reference = both
    if name in NEEDED and importlib.util.find_spec(NEEDED[name]) is None:
        pytest.skip(f"{NEEDED[name]}, which diffusers needs for {name}, is not installed")
    scheduler_class = getattr(diffusers, SCHEDULERS[name].diffusers_name)
    options = {"noise_sampler_seed": [SEED]} if name == "dpm-solver-sde" else {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="__array_", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="Should have t[ab]", category=UserWarning)
        reference.scheduler = scheduler_class.from_pretrained(folder / "scheduler", **options)
        wanted = draw_reference(reference)
    given = draw(pipeline, scheduler=name)
    assert psnr(given, wanted) >= LEAST_OF.get(name, LEAST)


@pytest.mark.parametrize("eta", [0.0, 0.3])
def test_tcd_draws_as_much_noise_as_asked_for(both, eta):
    folder, pipeline, reference = both
    reference.scheduler = diffusers.TCDScheduler.from_pretrained(folder / "scheduler")
    wanted = draw_reference(reference, eta=eta)
    assert psnr(draw(pipeline, scheduler="tcd", eta=eta), wanted) >= LEAST


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("euler", {"timesteps": TIMESTEPS}),
        ("euler", {"sigmas": SIGMAS}),
        ("heun", {"timesteps": TIMESTEPS}),
        ("dpm-solver", {"timesteps": TIMESTEPS}),
        ("ddpm", {"timesteps": TIMESTEPS}),
    ],
)
def test_a_plan_of_ones_own(both, name, plan):
    folder, pipeline, reference = both
    scheduler_class = getattr(diffusers, SCHEDULERS[name].diffusers_name)
    reference.scheduler = scheduler_class.from_pretrained(folder / "scheduler")
    given = draw(pipeline, scheduler=name, **plan)
    assert psnr(given, draw_reference(reference, **plan)) >= LEAST
    assert psnr(given, draw(pipeline, scheduler=name, num_inference_steps=5)) < 40


@pytest.fixture
def edit(both):
    """Change the folder's scheduler, in its config and in the index, for one test."""
    folder = both[0]
    files = folder / "scheduler" / "scheduler_config.json", folder / "model_index.json"
    before = [file.read_text() for file in files]

    def change(options, index_class=None):
        config = {**json.loads(before[0]), **options}
        config = {key: value for key, value in config.items() if value is not None}
        files[0].write_text(json.dumps(config))
        index = json.loads(before[1])
        index["scheduler"][1] = index_class or config["_class_name"]
        files[1].write_text(json.dumps(index))

    yield change
    for file, text in zip(files, before, strict=True):
        file.write_text(text)


OUTDATED = {
    "ddim": {"_class_name": "DDIMScheduler", "clip_sample": True, "steps_offset": 0},
    "ddim, left out": {"_class_name": "DDIMScheduler", "clip_sample": None, "steps_offset": None},
    "pndm": {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "steps_offset": 0},
}


@pytest.mark.parametrize("options", OUTDATED.values(), ids=OUTDATED.keys())
def test_outdated_options_are_corrected_as_in_diffusers(both, edit, options):
    folder, _, reference = both
    edit(options)
    scheduler = getattr(diffusers, options["_class_name"]).from_pretrained(folder / "scheduler")
    uncorrected = getattr(diffusers, options["_class_name"]).from_pretrained(folder / "scheduler")
    components = {**reference.components, "scheduler": scheduler}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        corrected = type(reference)(**components, requires_safety_checker=False)
    with pytest.warns(UserWarning, match="scheduler_config.json: .* is outdated"):
        pipeline = SDPipeline(DiffusionConfig(model_path=folder, engine="paddle-eager"))
    given = draw(pipeline)
    assert psnr(given, draw_reference(corrected)) >= LEAST
    reference.scheduler = uncorrected
    assert psnr(given, draw_reference(reference)) < 80


def test_the_index_names_the_scheduler(both, edit):
    folder, _, reference = both
    edit({"_class_name": "DDIMScheduler"}, "EulerDiscreteScheduler")
    with pytest.warns(UserWarning, match="names 'EulerDiscreteScheduler' as scheduler"):
        pipeline = SDPipeline(DiffusionConfig(model_path=folder, engine="paddle-eager"))
    given = draw(pipeline)
    assert pipeline.report.scheduler == "EulerScheduler"
    loaded = type(reference).from_pretrained(folder)
    assert type(loaded.scheduler).__name__ == "EulerDiscreteScheduler"
    loaded.set_progress_bar_config(disable=True)
    assert psnr(given, draw_reference(loaded)) >= LEAST


def test_a_plan_is_in_the_metadata_and_draws_the_picture_again(both):
    _, pipeline, _ = both
    settings = {"scheduler": "euler", "sigmas": SIGMAS, "height": 24, "width": 40, "seed": 3}
    image = pipeline.text_to_image("a dog", **settings)
    noted = read_settings(image)
    assert noted["sigmas"] == SIGMAS
    assert noted["num_inference_steps"] == 4
    again = pipeline.text_to_image(**noted)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(image))
