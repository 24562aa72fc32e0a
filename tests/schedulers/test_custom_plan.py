"""Timesteps and noise levels of the caller's own: as in diffusers, or refused."""

import numpy as np
import pytest
from reference_trajectory import SHAPE, denoise, draw_latents, ignore_reference_warnings

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.schedulers import SCHEDULERS, create_scheduler

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TIMESTEPS = [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]  # of "Align Your Steps"
SIGMAS = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.38, 0.234, 0.113, 0.0]
TAKE_TIMESTEPS = [name for name, each in SCHEDULERS.items() if each.takes_timesteps]


def compare(name, **plan):
    import diffusers
    import torch

    scheduler = create_scheduler(SD, name)
    scheduler.set_timesteps(**plan)
    with ignore_reference_warnings():
        reference = getattr(diffusers, scheduler.diffusers_name).from_config(SD)
        reference.set_timesteps(**plan)
    np.testing.assert_allclose(scheduler.timesteps, reference.timesteps.numpy(), atol=1e-3)
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    ours = scheduler.init_noise_sigma * draw_latents()
    theirs = torch.from_numpy(float(reference.init_noise_sigma) * draw_latents())
    options = {"generator": generators[1]} if name in ("ddpm", "lcm", "tcd") else {}
    options |= {"eta": 0.0} if name == "tcd" else {}
    for given, wanted in zip(scheduler.timesteps, reference.timesteps, strict=True):
        output = denoise(scheduler.scale_model_input(ours, given), given)
        ours = scheduler.step(
            output,
            given,
            ours,
            noise=lambda: torch.randn(SHAPE, generator=generators[0]).numpy(),
        )
        output = denoise(reference.scale_model_input(theirs, wanted).numpy(), wanted)
        theirs = reference.step(torch.from_numpy(output), wanted, theirs, **options).prev_sample
        assert np.abs(ours - theirs.numpy()).max() < 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("name", TAKE_TIMESTEPS)
def test_timesteps_equal_diffusers(name):
    compare(name, timesteps=TIMESTEPS)


def test_noise_levels_equal_diffusers():
    compare("euler", sigmas=SIGMAS)


def test_who_takes_which_is_as_in_diffusers():
    import inspect

    import diffusers

    for each in SCHEDULERS.values():
        accepted = inspect.signature(getattr(diffusers, each.diffusers_name).set_timesteps)
        assert each.takes_timesteps == ("timesteps" in accepted.parameters)
    # UniPC takes noise levels for flows, and EDM-Euler no list.
    takers = [name for name, each in SCHEDULERS.items() if each.takes_sigmas]
    assert takers == ["euler"]


@pytest.mark.parametrize(
    ("name", "plan", "words"),
    [
        ("ddim", {"timesteps": TIMESTEPS}, "DDIMScheduler takes no timesteps"),
        ("unipc", {"sigmas": SIGMAS}, "UniPCScheduler takes no sigmas"),
        ("Euler Karras", {"timesteps": TIMESTEPS}, "the scheduler has use_karras_sigmas"),
        ("euler", {"timesteps": TIMESTEPS, "sigmas": SIGMAS}, "sigmas and timesteps are both"),
        ("euler", {"timesteps": [9], "num_inference_steps": 1}, "timesteps and num_inference_s"),
        ("euler", {"timesteps": [5, 9]}, r"timesteps are \[5.0, 9.0\]"),
        ("euler", {"timesteps": [9, 9]}, r"timesteps are \[9.0, 9.0\]"),
        ("euler", {"timesteps": [1000]}, r"allowed: a list of descending numbers from 999 to 0"),
        ("euler", {"timesteps": [3, -1]}, "timesteps are"),
        ("euler", {"timesteps": []}, r"timesteps are \[\]"),
        ("euler", {"timesteps": 9}, "timesteps are 9"),
        ("euler", {"timesteps": ["9"]}, "timesteps are"),
        ("euler", {"timesteps": [float("nan")]}, "timesteps are"),
        ("euler", {"timesteps": [10**400]}, "timesteps are"),
        ("euler", {"sigmas": [1.0]}, "two or more descending noise levels"),
        ("euler", {"sigmas": [1.0, 2.0]}, "sigmas are"),
        ("euler", {"sigmas": [1.0, -0.1]}, "sigmas are"),
        ("euler", {"sigmas": [1e30, 0.0]}, "sigmas are"),
        ("euler", {}, "num_inference_steps=None"),
    ],
)
def test_what_is_no_plan_is_refused(name, plan, words):
    from fastdeploy_diffusion.scheduler_names import choose_scheduler

    choice = choose_scheduler(name)
    scheduler = create_scheduler({**SD, **choice.options}, choice.name)
    with pytest.raises(RequestError, match=words):
        scheduler.set_timesteps(**plan)
    with pytest.raises(RequestError, match="no timesteps yet"):
        _ = scheduler.timesteps
