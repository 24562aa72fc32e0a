"""Heun: an Euler step, then a correction with the slope at its end, but for the last step."""

from dataclasses import dataclass

import numpy as np

from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.base import DrawNoise
from fastdeploy_diffusion.schedulers.config import Beta, Magnitude, TimestepSpacing
from fastdeploy_diffusion.schedulers.noise_levels import NoiseLevelsConfig
from fastdeploy_diffusion.schedulers.predictions import predict_clean_from_sigma
from fastdeploy_diffusion.schedulers.spaced_sigma import SpacedSigmaScheduler
from fastdeploy_diffusion.schedulers.timesteps import timesteps_to_sigmas


@dataclass(frozen=True, kw_only=True)
class HeunConfig(NoiseLevelsConfig):
    """Options of Heun.

    Attributes:
        clip_sample: Clip the predicted clean sample to ``±clip_sample_range``.
        clip_sample_range: Largest magnitude.
    """

    beta_start: Beta = 0.00085
    beta_end: Beta = 0.012
    timestep_spacing: TimestepSpacing = "linspace"
    clip_sample: bool = False
    clip_sample_range: Magnitude = 1.0


@dataclass(frozen=True)
class EulerStep:
    """The first half of a Heun step.

    Attributes:
        latents: Where it started, ``(B, C, H, W)``.
        slope: The slope there, same shape.
        length: Change of sigma.
    """

    latents: FloatArray
    slope: FloatArray
    length: float


class HeunScheduler(SpacedSigmaScheduler[HeunConfig]):
    """Algorithm 2 of https://arxiv.org/abs/2206.00364 without churn."""

    diffusers_name = "HeunDiscreteScheduler"
    config_class = HeunConfig
    order = 2
    takes_timesteps = True

    def __init__(self, config: HeunConfig) -> None:
        super().__init__(config)
        self._first_half: EulerStep | None = None

    def _plan(self, steps: int) -> TimestepArray:
        return self._lay_out(*self._space(steps))

    def _plan_timesteps(self, timesteps: TimestepArray) -> TimestepArray:
        return self._lay_out(timesteps, timesteps_to_sigmas(timesteps, self.train_sigmas))

    def _lay_out(self, timesteps: TimestepArray, sigmas: FloatArray) -> TimestepArray:
        # Every level but the first is visited as the end of a step and as the start of the next.
        self.sigmas = np.append(repeat_after_first(sigmas), 0.0).astype(np.float32)
        self._first_half = None
        return repeat_after_first(timesteps).astype(np.float32)

    def _step(
        self, position: int, model_output: FloatArray, latents: FloatArray, noise: DrawNoise
    ) -> FloatArray:
        sigma = self._sigma(position)
        clean = predict_clean_from_sigma(self.config.prediction_type, model_output, latents, sigma)
        if self.config.clip_sample:
            clean = np.clip(clean, -self.config.clip_sample_range, self.config.clip_sample_range)
        slope = (latents - clean) / sigma
        half = self._first_half
        if half is None:
            half = EulerStep(latents, slope, self._sigma(position + 1) - sigma)
            self._first_half = half
            return latents + slope * half.length
        self._first_half = None
        return half.latents + (half.slope + slope) / 2 * half.length


def repeat_after_first(values: FloatArray) -> FloatArray:
    """Repeat all but the first, which no step ends at."""
    return np.concatenate([values[:1], np.repeat(values[1:], 2)])
