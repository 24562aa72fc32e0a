"""EDM-Euler: Euler for models that were trained with the preconditioning of EDM."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.base import DrawNoise, Scheduler
from fastdeploy_diffusion.schedulers.config import (
    FinalSigma,
    Magnitude,
    NoiseLevel,
    SchedulerConfig,
)
from fastdeploy_diffusion.schedulers.noise_levels import (
    space_evenly_in_logarithms,
    space_evenly_in_roots,
)


@dataclass(frozen=True, kw_only=True)
class EDMEulerConfig(SchedulerConfig):
    """Options of EDM-Euler; the betas of the inherited ones have no effect.

    Attributes:
        sigma_min: Smallest noise level.
        sigma_max: Largest noise level.
        sigma_data: Standard deviation of the data.
        sigma_schedule: Space the noise levels by equation 5, or their logarithms evenly.
        rho: Exponent of equation 5.
        final_sigmas_type: Noise level after the last step: none, or the smallest.
    """

    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    sigma_min: NoiseLevel = 0.002
    sigma_max: NoiseLevel = 80.0
    sigma_data: Magnitude = 0.5
    sigma_schedule: Literal["karras", "exponential"] = "karras"
    rho: Annotated[float, Field(ge=0.1, le=100)] = 7.0
    final_sigmas_type: FinalSigma = "zero"

    def __post_init__(self) -> None:
        if self.sigma_min > self.sigma_max:
            raise ConfigError(
                f"scheduler option sigma_min={self.sigma_min} is larger than "
                f"sigma_max={self.sigma_max}",
                allowed="the smallest noise level, and the largest",
                fix="correct sigma_min or sigma_max in scheduler_config.json",
            )


class EDMEulerScheduler(Scheduler[EDMEulerConfig]):
    """Algorithm 2 of https://arxiv.org/abs/2206.00364 without churn, first order only.

    Latents are ``clean + sigma * noise``; timesteps are ``ln(sigma) / 4``.

    Attributes:
        sigmas: Noise levels of this request, one more than ``planned_timesteps``, float32.
    """

    diffusers_name = "EDMEulerScheduler"
    config_class = EDMEulerConfig

    def __init__(self, config: EDMEulerConfig) -> None:
        super().__init__(config)
        self.sigmas: FloatArray = np.empty(0, dtype=np.float32)

    @property
    def init_noise_sigma(self) -> float:
        """The largest noise level, added to latents of unit variance."""
        return math.sqrt(self.config.sigma_max**2 + 1)

    def scale_model_input(self, latents: FloatArray, timestep: float) -> FloatArray:
        """Divide latents to unit variance."""
        sigma = float(self.sigmas[self.due_index(timestep)])
        return np.asarray(latents / math.sqrt(sigma**2 + self.config.sigma_data**2))

    def add_noise(self, original: FloatArray, noise: FloatArray, timestep: float) -> FloatArray:
        """Noise clean latents to the level of one of this request's timesteps."""
        return np.asarray(original + float(self.sigmas[self.index_of(timestep)]) * noise)

    def _plan(self, steps: int) -> TimestepArray:
        config = self.config
        if config.sigma_schedule == "karras":
            sigmas = space_evenly_in_roots(config.sigma_min, config.sigma_max, steps, config.rho)
        else:
            # A single step is the smallest level, as in diffusers, which counts upwards.
            high = config.sigma_max if steps > 1 else config.sigma_min
            sigmas = space_evenly_in_logarithms(config.sigma_min, high, steps)
        final = 0.0 if config.final_sigmas_type == "zero" else sigmas[-1]
        self.sigmas = np.append(sigmas, final).astype(np.float32)
        return np.asarray(np.float32(0.25) * np.log(self.sigmas[:-1]))

    def _step(
        self, position: int, model_output: FloatArray, latents: FloatArray, noise: DrawNoise
    ) -> FloatArray:
        sigma, sigma_next = (float(each) for each in self.sigmas[position : position + 2])
        data = self.config.sigma_data
        variance = sigma**2 + data**2
        # Table 1, the column of EDM.
        out = sigma * data / math.sqrt(variance)
        if self.config.prediction_type == "v_prediction":
            out = -out
        clean = data**2 / variance * latents + out * model_output
        return latents + (latents - clean) / sigma * (sigma_next - sigma)
