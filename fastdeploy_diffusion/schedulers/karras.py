"""Noise levels of Karras et al., shared by the schedulers that work on sigmas."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.schedulers.arrays import FloatArray
from fastdeploy_diffusion.schedulers.config import NoiseLevel, SchedulerConfig

RHO = 7.0


@dataclass(frozen=True, kw_only=True)
class KarrasConfig(SchedulerConfig):
    """Options that choose the inference noise levels.

    Attributes:
        use_karras_sigmas: Space the noise levels by equation 5 of https://arxiv.org/abs/2206.00364.
        sigma_min: Smallest Karras noise level; by default that of the spaced timesteps.
        sigma_max: Largest Karras noise level; by default that of the spaced timesteps.
    """

    use_karras_sigmas: bool | None = False
    use_exponential_sigmas: Literal[False] | None = False
    use_beta_sigmas: Literal[False] | None = False
    sigma_min: NoiseLevel | None = None
    sigma_max: NoiseLevel | None = None

    def __post_init__(self) -> None:
        low, high = self.sigma_min, self.sigma_max
        if low is not None and high is not None and low > high:
            raise ConfigError(
                f"scheduler option sigma_min={low} is larger than sigma_max={high}",
                allowed="the smallest noise level, and the largest",
                fix="correct sigma_min or sigma_max in scheduler_config.json",
            )


def karras_sigmas(config: KarrasConfig, sigmas: FloatArray, steps: int) -> FloatArray:
    """Space noise levels from ``sigma_max`` down to ``sigma_min`` evenly in ``sigma ** (1 / 7)``.

    Args:
        config: May fix the two ends.
        sigmas: Descending noise levels, which give the ends that ``config`` does not.

    Returns:
        ``(steps,)`` float64, without the final zero.

    Raises:
        ConfigError: The ends are the wrong way round.
    """
    low = float(sigmas[-1]) if config.sigma_min is None else config.sigma_min
    high = float(sigmas[0]) if config.sigma_max is None else config.sigma_max
    if low > high:
        raise ConfigError(
            f"the smallest Karras noise level, {low:g}, is above the largest, {high:g}",
            allowed="sigma_min below sigma_max",
            fix="correct sigma_min or sigma_max in scheduler_config.json",
        )
    return space_evenly_in_roots(low, high, steps)


def space_evenly_in_roots(low: float, high: float, steps: int) -> FloatArray:
    """Space noise levels from ``high`` down to ``low`` evenly in ``sigma ** (1 / 7)``."""
    start, end = high ** (1 / RHO), low ** (1 / RHO)
    return np.asarray((start + np.linspace(0, 1, steps) * (end - start)) ** RHO)
