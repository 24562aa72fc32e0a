"""Spacings of noise levels that do not follow from timesteps: Karras, exponential, beta."""

from dataclasses import dataclass

import numpy as np

from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.schedulers.arrays import FloatArray
from fastdeploy_diffusion.schedulers.beta_quantile import beta_quantile
from fastdeploy_diffusion.schedulers.config import NoiseLevel, SchedulerConfig

RHO = 7.0
# Both parameters of the beta distribution, as in https://arxiv.org/abs/2407.12173.
BETA_SHAPE = 0.6


@dataclass(frozen=True, kw_only=True)
class NoiseLevelsConfig(SchedulerConfig):
    """Options that choose the inference noise levels; no two spacings at once.

    Attributes:
        use_karras_sigmas: Space the noise levels by equation 5 of https://arxiv.org/abs/2206.00364.
        use_exponential_sigmas: Space their logarithms evenly.
        use_beta_sigmas: Space them by quantiles of a beta distribution, dense at both ends, as in
            https://arxiv.org/abs/2407.12173.
        sigma_min: Smallest of these noise levels; by default that of the spaced timesteps.
        sigma_max: Largest of these noise levels; by default that of the spaced timesteps.
    """

    use_karras_sigmas: bool | None = False
    use_exponential_sigmas: bool | None = False
    use_beta_sigmas: bool | None = False
    sigma_min: NoiseLevel | None = None
    sigma_max: NoiseLevel | None = None

    def __post_init__(self) -> None:
        check_spacings(self)
        low, high = self.sigma_min, self.sigma_max
        if low is not None and high is not None and low > high:
            raise ConfigError(
                f"scheduler option sigma_min={low} is larger than sigma_max={high}",
                allowed="the smallest noise level, and the largest",
                fix="correct sigma_min or sigma_max in scheduler_config.json",
            )


def find_spacing(config: SchedulerConfig) -> str | None:
    """Name the option that spaces the noise levels; ``None`` where timesteps do."""
    names = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
    return next((name for name in names if getattr(config, name, False)), None)


def check_spacings(config: SchedulerConfig) -> None:
    """Refuse two spacings at once.

    Raises:
        ConfigError: Names both.
    """
    names = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
    chosen = [name for name in names if getattr(config, name)]
    if len(chosen) > 1:
        raise ConfigError(
            f"scheduler options {' and '.join(chosen)} exclude each other",
            fix="set all but one of them to false in scheduler_config.json",
        )


def space_noise_levels(config: NoiseLevelsConfig, sigmas: FloatArray, steps: int) -> FloatArray:
    """Space noise levels from ``sigma_max`` down to ``sigma_min`` as the config says.

    Args:
        config: Chooses the spacing, and may fix the two ends.
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
            f"the smallest noise level, {low:g}, is above the largest, {high:g}",
            allowed="sigma_min below sigma_max",
            fix="correct sigma_min or sigma_max in scheduler_config.json",
        )
    spacing = find_spacing(config)
    if spacing == "use_karras_sigmas":
        return space_evenly_in_roots(low, high, steps)
    if spacing == "use_exponential_sigmas":
        return space_evenly_in_logarithms(low, high, steps)
    return space_by_beta(low, high, steps)


def space_evenly_in_roots(low: float, high: float, steps: int, rho: float = RHO) -> FloatArray:
    """Space noise levels from ``high`` down to ``low`` evenly in ``sigma ** (1 / rho)``."""
    start, end = high ** (1 / rho), low ** (1 / rho)
    return np.asarray((start + np.linspace(0, 1, steps) * (end - start)) ** rho)


def space_evenly_in_logarithms(low: float, high: float, steps: int) -> FloatArray:
    """Space noise levels from ``high`` down to ``low`` by a constant factor."""
    return np.asarray(np.exp(np.linspace(np.log(high), np.log(low), steps)))


def space_by_beta(low: float, high: float, steps: int) -> FloatArray:
    """Space noise levels from ``high`` down to ``low`` by quantiles of a beta distribution."""
    shares = beta_quantile(1 - np.linspace(0, 1, steps), BETA_SHAPE, BETA_SHAPE)
    return np.asarray(low + shares * (high - low))
