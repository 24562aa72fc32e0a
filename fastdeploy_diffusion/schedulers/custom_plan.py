"""Timesteps and noise levels that a caller chooses in place of a number of steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.config import SchedulerConfig
from fastdeploy_diffusion.schedulers.noise_levels import find_spacing
from fastdeploy_diffusion.shown import show

_LARGEST_SIGMA = 1e6


def read_timesteps(given: Sequence[float], config: SchedulerConfig) -> TimestepArray:
    """Check a caller's timesteps; returns them as ``(steps,)`` float64.

    Raises:
        RequestError: They do not fall, or lie outside the training, or the config spaces the noise
            levels by itself.
    """
    spacing = find_spacing(config)
    if spacing is not None:
        raise RequestError(
            f"timesteps are given, and the scheduler has {spacing}",
            allowed="timesteps, or noise levels spaced by the scheduler",
            fix="leave timesteps out, or choose a sampler without that spacing",
        )
    last = config.num_train_timesteps - 1
    allowed = f"a list of descending numbers from {last} to 0"
    timesteps = read_numbers("timesteps", given, allowed)
    if timesteps[0] > last or timesteps[-1] < 0 or np.any(np.diff(timesteps) >= 0):
        raise RequestError(f"timesteps are {_show(timesteps)}", allowed=allowed)
    return timesteps


def read_sigmas(given: Sequence[float]) -> FloatArray:
    """Check a caller's noise levels; returns them as ``(steps + 1,)`` float32.

    Raises:
        RequestError: They do not fall, or there are fewer than two.
    """
    allowed = "a list of two or more descending noise levels, of which only the last may be 0"
    sigmas = read_numbers("sigmas", given, allowed)
    is_falling = len(sigmas) > 1 and not np.any(np.diff(sigmas) >= 0) and sigmas[-1] >= 0
    if not is_falling or sigmas[0] > _LARGEST_SIGMA:
        raise RequestError(f"sigmas are {_show(sigmas)}", allowed=allowed)
    return sigmas.astype(np.float32)


def read_shares(given: Sequence[float]) -> FloatArray:
    """Check the shares of noise that a caller chose for a flow; returns ``(steps,)`` float32.

    Raises:
        RequestError: They do not fall from 1 or less to above 0.
    """
    allowed = "numbers from 1 to above 0, each smaller than the one before"
    shares = read_numbers("sigmas", given, allowed)
    rounded = shares.astype(np.float32)
    if not 0 < rounded[-1] <= rounded[0] <= 1 or np.any(np.diff(rounded) >= 0):
        raise RequestError(f"sigmas are {_show(shares)}", allowed=allowed)
    return rounded


def read_numbers(name: str, given: Any, allowed: str) -> FloatArray:
    """Read a list of one or more finite numbers, float64.

    Raises:
        RequestError: It is something else.
    """
    if isinstance(given, np.ndarray):
        given = given.tolist()
    is_list = isinstance(given, Sequence) and not isinstance(given, str) and len(given) > 0
    kinds = (int, float, np.integer, np.floating)
    if not is_list or any(isinstance(x, bool) or not isinstance(x, kinds) for x in given):
        raise RequestError(f"{name} are {show(given)}", allowed=allowed)
    try:
        numbers = np.array([float(each) for each in given])
    except OverflowError:
        numbers = np.array([np.inf])
    if not np.all(np.isfinite(numbers)):
        raise RequestError(f"{name} are {show(given)}", allowed=allowed)
    return numbers


def _show(numbers: FloatArray) -> str:
    return show(numbers.tolist())
