"""Heun along a flow: trajectories equal diffusers'."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchHeunDiscreteScheduler
from reference_trajectory import denoise, draw_latents

from fastdeploy_diffusion.errors import ConfigError, RequestError
from fastdeploy_diffusion.schedulers.create_flow import create_flow_scheduler

NAME = {"_class_name": "FlowMatchHeunDiscreteScheduler"}


@pytest.mark.parametrize("steps", [1, 2, 10, 20, 50])
@pytest.mark.parametrize("options", [{}, {"shift": 3.0}, {"num_train_timesteps": 100}])
def test_trajectory_equals_diffusers(options, steps):
    reference = FlowMatchHeunDiscreteScheduler.from_config({**NAME, **options})
    reference.set_timesteps(steps)
    reference.set_begin_index(0)
    scheduler = create_flow_scheduler({**NAME, **options})
    scheduler.set_timesteps(steps)
    np.testing.assert_allclose(scheduler.timesteps, reference.timesteps.numpy(), rtol=1e-6)
    ours, theirs = draw_latents(), torch.from_numpy(draw_latents())
    for given, wanted in zip(scheduler.timesteps, reference.timesteps, strict=True):
        ours = scheduler.step(denoise(ours, given), given, ours, noise=draw_latents)
        output = torch.from_numpy(denoise(theirs.numpy(), wanted))
        theirs = reference.step(output, wanted, theirs).prev_sample
        assert ours.dtype == np.float32
        assert np.abs(ours - theirs.numpy()).max() <= 1e-4 * theirs.abs().max()


def test_what_it_does_not_take_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'shift'"):
        create_flow_scheduler({**NAME, "shfit": 3.0})
    with pytest.raises(RequestError, match="takes no sigmas"):
        create_flow_scheduler(NAME).set_timesteps(sigmas=[1.0, 0.5])
    with pytest.raises(RequestError, match="num_inference_steps=0"):
        create_flow_scheduler(NAME).set_timesteps(0)
