"""Spacing of inference steps over the training timesteps."""

import numpy as np
from numpy.typing import NDArray

from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.config import SchedulerConfig


def space_timesteps(config: SchedulerConfig, steps: int) -> TimestepArray:
    """Space integer timesteps, noisiest first: Table 2 of https://arxiv.org/abs/2305.08891.

    Returns:
        ``(steps,)`` int64.
    """
    total = config.num_train_timesteps
    if config.timestep_spacing == "linspace":
        return _round(np.linspace(0, total - 1, steps))[::-1]
    if config.timestep_spacing == "leading":
        return np.arange(steps - 1, -1, -1, dtype=np.int64) * (total // steps) + config.steps_offset
    # For some counts (61 of 1000) floating point makes arange one entry too long, at timestep -1,
    # which no denoiser was trained on; diffusers keeps that entry.
    return _round(np.arange(total, 0, -total / steps)[:steps]) - 1


def space_fractional_timesteps(config: SchedulerConfig, steps: int) -> TimestepArray:
    """Space timesteps likewise, as ``(steps,)`` float64; "linspace" keeps its fractions."""
    if config.timestep_spacing == "linspace":
        return np.linspace(0, config.num_train_timesteps - 1, steps)[::-1]
    return space_timesteps(config, steps).astype(np.float64)


def space_interior_timesteps(config: SchedulerConfig, steps: int, last: int) -> TimestepArray:
    """Space integer timesteps for solvers whose last step ends at timestep 0, ``(steps,)`` int64.

    Args:
        last: Number of training timesteps to cover, counted from 0.
    """
    if config.timestep_spacing == "linspace":
        return _round(np.linspace(0, last - 1, steps + 1))[:0:-1]
    if config.timestep_spacing == "leading":
        stride = last // (steps + 1)
        return np.arange(steps, 0, -1, dtype=np.int64) * stride + config.steps_offset
    return _round(np.arange(last, 0, -config.num_train_timesteps / steps)[:steps]) - 1


def timesteps_to_sigmas(timesteps: TimestepArray, train_sigmas: FloatArray) -> FloatArray:
    """Interpolate noise levels at (possibly fractional) timesteps, ``(steps,)`` float64."""
    return np.interp(timesteps, np.arange(len(train_sigmas)), train_sigmas)


def sigmas_to_timesteps(sigmas: FloatArray, train_sigmas: FloatArray) -> TimestepArray:
    """Find the fractional timestep of each noise level by log sigma, ``(steps,)`` float64."""
    log_train = np.log(train_sigmas)
    return np.interp(np.log(np.maximum(sigmas, 1e-10)), log_train, np.arange(len(log_train)))


def _round(times: FloatArray) -> NDArray[np.int64]:
    return np.round(times).astype(np.int64)
