"""The training noise schedule: betas and their cumulative product, computed as torch does."""

import math
from collections.abc import Callable

import numpy as np

from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.schedulers.arrays import FloatArray
from fastdeploy_diffusion.schedulers.config import SchedulerConfig

_LEAST_NOISE = 1e-4  # share of it after the training; with less, there is nothing to denoise


def cumulate_alphas(config: SchedulerConfig, *, zero_terminal_snr: bool = False) -> FloatArray:
    """Multiply up ``1 - beta``: the share of signal power left at each training timestep.

    Args:
        zero_terminal_snr: Rescale so that the last timestep is pure noise.

    Returns:
        ``(num_train_timesteps,)`` float32, falling from nearly 1.

    Raises:
        ConfigError: The betas are so small that nothing is noised, or so large that nothing is left
            of the signal before the end.
    """
    power = _cumulate(1 - make_betas(config))
    if not (power[-1] > 0 and power[0] < 1 and power[-1] < 1 - _LEAST_NOISE):
        raise ConfigError(
            f"the betas leave a share of {power[-1]:g} of the signal after {len(power)} training "
            f"timesteps, and {power[0]:g} after the first",
            allowed="shares between 0 and 1 in float32",
            fix="correct beta_start, beta_end, beta_schedule, trained_betas or "
            "num_train_timesteps in scheduler_config.json",
        )
    if not zero_terminal_snr:
        return power
    if len(power) == 1:
        raise ConfigError(
            "rescale_betas_zero_snr=True with num_train_timesteps=1: the only timestep would be "
            "pure noise",
            fix="correct num_train_timesteps in scheduler_config.json",
        )
    return _cumulate(1 - rescale_to_zero_terminal_snr(make_betas(config)))


def make_betas(config: SchedulerConfig) -> FloatArray:
    """Compute each training step's noise variance, ``(num_train_timesteps,)`` float32."""
    start, end, count = config.beta_start, config.beta_end, config.num_train_timesteps
    if config.trained_betas is not None:
        return np.array(config.trained_betas, dtype=np.float32)
    if config.beta_schedule == "linear":
        return _linspace(start, end, count)
    if config.beta_schedule == "scaled_linear":
        return _linspace(start**0.5, end**0.5, count) ** 2
    if config.beta_schedule == "sigmoid":
        sigmoid = 1 / (1 + np.exp(-_linspace(-6, 6, count)))
        return (sigmoid * (end - start) + start).astype(np.float32)
    alpha_bar = {"squaredcos_cap_v2": _cosine, "laplace": _laplace, "exp": _exponential}
    return _betas_of(alpha_bar[config.beta_schedule], count)


def rescale_to_zero_terminal_snr(betas: FloatArray) -> FloatArray:
    """Shift and scale the schedule so that the last timestep keeps no signal.

    Algorithm 1 of https://arxiv.org/abs/2305.08891.

    Args:
        betas: ``(num_train_timesteps,)`` float32.
    """
    signal = np.sqrt(_cumulate(1 - betas))
    first, last = signal[0], signal[-1]
    signal = (signal - last) * (first / (first - last))
    power = signal**2
    alphas = np.concatenate([power[:1], power[1:] / power[:-1]])
    return 1 - alphas


def _cumulate(alphas: FloatArray) -> FloatArray:
    # torch accumulates float32 products in double and rounds each result.
    return np.cumprod(alphas, dtype=np.float64).astype(np.float32)


def _linspace(start: float, end: float, count: int) -> FloatArray:
    # torch counts from both ends towards the middle, by a float32 step, rounding once per value.
    # numpy differs in the last bit, and a rounded timestep can depend on that bit.
    if count == 1:
        return np.array([start], dtype=np.float32)
    first, last = np.float32(start), np.float32(end)
    step = float((last - first) / np.float32(count - 1))
    index = np.arange(count)
    upward = float(first) + step * index
    downward = float(last) - step * (count - 1 - index)
    return np.where(index < count // 2, upward, downward).astype(np.float32)


def _betas_of(alpha_bar: Callable[[float], float], count: int) -> FloatArray:
    ratios = (alpha_bar((i + 1) / count) / alpha_bar(i / count) for i in range(count))
    return np.array([min(1 - ratio, 0.999) for ratio in ratios], dtype=np.float32)


def _cosine(time: float) -> float:
    return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2


def _exponential(time: float) -> float:
    return math.exp(time * -12.0)


def _laplace(time: float) -> float:
    side = math.copysign(1, 0.5 - time)
    snr = math.exp(-0.5 * side * math.log(1 - 2 * abs(0.5 - time) + 1e-6))
    return math.sqrt(snr / (1 + snr))
