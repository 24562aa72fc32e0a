"""The scheduler of Flux: trajectories equal diffusers', with and without a pipeline's sigmas."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from reference_trajectory import SHAPE, denoise, draw_latents

from fastdeploy_diffusion.errors import ConfigError, RequestError
from fastdeploy_diffusion.schedulers.create_flow import create_flow_scheduler

NAME = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
OPTIONS = {
    "schnell": {"shift": 1.0},
    "static shift": {"shift": 3.0},
    "dev": {"shift": 3.0, "use_dynamic_shifting": True},
    "other range": {
        "use_dynamic_shifting": True,
        "base_shift": 0.2,
        "max_shift": 2.0,
        "base_image_seq_len": 64,
        "max_image_seq_len": 1024,
    },
    "linear": {"use_dynamic_shifting": True, "time_shift_type": "linear"},
    "terminal": {"use_dynamic_shifting": True, "shift_terminal": 0.1},
    "karras": {"shift": 2.0, "use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"shift": 2.0, "use_beta_sigmas": True},
    "inverted": {"invert_sigmas": True},
    "stochastic": {"shift": 2.0, "stochastic_sampling": True},
    "short training": {"num_train_timesteps": 100},
}


@pytest.mark.parametrize("as_in_flux", [True, False])
@pytest.mark.parametrize("steps", [1, 4, 28])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_trajectory_equals_diffusers(options, steps, as_in_flux):
    if "shift_terminal" in options and steps == 1:
        steps = 2  # see test_one_step_cannot_be_stretched
    if "use_beta_sigmas" in options:
        pytest.importorskip("scipy")
    tokens = 1350
    sigmas = np.linspace(1.0, 1 / steps, steps) if as_in_flux else None
    reference = FlowMatchEulerDiscreteScheduler.from_config({**NAME, **options})
    ranges = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    mu = calculate_shift(tokens, *(reference.config[name] for name in ranges))
    reference.set_timesteps(None if as_in_flux else steps, sigmas=sigmas, mu=mu)
    reference.set_begin_index(0)
    scheduler = create_flow_scheduler({**NAME, **options})
    scheduler.set_timesteps(steps, sigmas=sigmas, image_tokens=tokens)
    np.testing.assert_allclose(scheduler.timesteps, reference.timesteps.numpy(), rtol=1e-6)
    np.testing.assert_allclose(scheduler.sigmas, reference.sigmas.numpy(), rtol=1e-6)

    ours, theirs = draw_latents(), torch.from_numpy(draw_latents())
    mine, other = (torch.Generator().manual_seed(1) for _ in range(2))
    for given, wanted in zip(scheduler.timesteps, reference.timesteps, strict=True):
        ours = scheduler.step(
            denoise(scheduler.scale_model_input(ours, given), given),
            given,
            ours,
            noise=lambda: torch.randn(SHAPE, generator=mine).numpy(),
        )
        output = torch.from_numpy(denoise(theirs.numpy(), wanted))
        theirs = reference.step(output, wanted, theirs, generator=other).prev_sample
        assert ours.dtype == np.float32
        assert np.abs(ours - theirs.numpy()).max() <= 1e-4 * theirs.abs().max()


def test_noise_of_any_step():
    scheduler = create_flow_scheduler(NAME)
    scheduler.set_timesteps(7)
    reference = FlowMatchEulerDiscreteScheduler.from_config(NAME)
    reference.set_timesteps(7)
    clean, noise = draw_latents(3), draw_latents(4)
    wanted = reference.scale_noise(
        torch.from_numpy(clean), reference.timesteps[[4, 4]], torch.from_numpy(noise)
    )
    given = scheduler.add_noise(clean, noise, scheduler.timesteps[4])
    np.testing.assert_allclose(given, wanted.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"_class_name": "EulerDiscreteScheduler"}, "EulerDiscreteScheduler"),
        ({"beta_start": 0.1}, "beta_start"),
        ({"shfit": 3.0}, "did you mean 'shift'"),
        ({"use_karras_sigmas": True, "use_beta_sigmas": True}, "exclude each other"),
        ({"time_shift_type": "quadratic"}, "quadratic"),
        ({"use_karras_sigmas": True, "use_exponential_sigmas": True}, "exclude each other"),
        ({"max_image_seq_len": 256}, "are both 256"),
        ({"shift": 0}, "shift=0 is not supported"),
        ({"shift": 1e30}, r"shift=1e\+30"),
        ({"base_shift": float("nan")}, "base_shift=nan"),
        ({"max_shift": 10**400}, "max_shift=a number of about 401 digits"),
        ({"num_train_timesteps": 10**9}, "num_train_timesteps=1000000000"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(options, words):
    with pytest.raises(ConfigError, match=words):
        create_flow_scheduler({**NAME, **options})


@pytest.mark.parametrize("steps", [0, -1, 1001, 2.0, True, None])
def test_nonsense_steps_are_refused(steps):
    with pytest.raises(RequestError, match=f"num_inference_steps={steps}"):
        create_flow_scheduler(NAME).set_timesteps(steps)


@pytest.mark.parametrize(
    "options",
    [
        {"base_image_seq_len": 256, "max_image_seq_len": 257},
        {"base_shift": 1.0, "max_shift": -5.0, "time_shift_type": "linear"},
    ],
)
def test_a_shift_that_leaves_no_noise_levels(options):
    """An exponent of 2,000 is no number, and a factor below zero makes less than no noise."""
    scheduler = create_flow_scheduler({**NAME, "use_dynamic_shifting": True, **options})
    scheduler.set_timesteps(4, image_tokens=256)
    with pytest.raises(ConfigError, match="a picture of 4096 tokens is shifted by"):
        scheduler.set_timesteps(4, image_tokens=4096)


def test_one_step_cannot_be_stretched():
    """It begins at pure noise, of which nothing is left to stretch: diffusers divides by zero."""
    with pytest.raises(RequestError, match="shift_terminal"):
        create_flow_scheduler({**NAME, "shift_terminal": 0.1}).set_timesteps(1)


def test_what_a_plan_needs():
    with pytest.raises(RequestError, match="size of the picture"):
        create_flow_scheduler({**NAME, "use_dynamic_shifting": True}).set_timesteps(4)
    with pytest.raises(RequestError, match="3, one for each of sigmas"):
        create_flow_scheduler(NAME).set_timesteps(4, sigmas=[1.0, 0.6, 0.2])


def test_steps_are_taken_in_order():
    scheduler = create_flow_scheduler(NAME)
    with pytest.raises(RequestError, match="set_timesteps"):
        _ = scheduler.timesteps
    scheduler.set_timesteps(3)
    with pytest.raises(RequestError, match="in order"):
        scheduler.step(draw_latents(), scheduler.timesteps[1], draw_latents(), noise=draw_latents)
    for timestep in scheduler.timesteps:
        scheduler.step(draw_latents(), timestep, draw_latents(), noise=draw_latents)
    with pytest.raises(RequestError, match="every step was taken"):
        scheduler.step(draw_latents(), timestep, draw_latents(), noise=draw_latents)
