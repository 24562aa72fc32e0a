"""The base of DPM-Solver, UniPC and DEIS: noise levels of timesteps, latents of unit variance."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.clipping import ThresholdingConfig, threshold_sample
from fastdeploy_diffusion.schedulers.dpm_update import NoiseLevel, noise_level
from fastdeploy_diffusion.schedulers.noise_levels import (
    NoiseLevelsConfig,
    find_spacing,
    space_noise_levels,
)
from fastdeploy_diffusion.schedulers.predictions import predict_clean, predict_noise
from fastdeploy_diffusion.schedulers.sigma import SigmaScheduler
from fastdeploy_diffusion.schedulers.timesteps import sigmas_to_timesteps, timesteps_to_sigmas

# With fewer steps than this, diffusers lowers the order at the end for stability.
FEW_STEPS = 15
# Noise levels closer than this, relatively, are the same one rounded to float32.
ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class UnitVarianceConfig(NoiseLevelsConfig, ThresholdingConfig):
    """Options of solvers in the log signal-to-noise ratio."""


UnitVarianceConfigT = TypeVar("UnitVarianceConfigT", bound=UnitVarianceConfig)


class UnitVarianceScheduler(SigmaScheduler[UnitVarianceConfigT]):
    """A scheduler with noise levels, whose latents are ``alpha * clean + alpha * sigma * noise``.

    Its latents have unit variance, unlike those of the other schedulers that work on sigmas.
    """

    @property
    def init_noise_sigma(self) -> float:
        """Always 1: the variance is preserved."""
        return 1.0

    def scale_model_input(self, latents: FloatArray, timestep: float) -> FloatArray:
        """Return the latents as they are."""
        return latents

    def add_noise(self, original: FloatArray, noise: FloatArray, timestep: float) -> FloatArray:
        """Noise clean latents to the level of one of this request's timesteps."""
        level = self._level(self.index_of(timestep))
        return level.alpha * original + level.sigma * noise

    def _level(self, position: int) -> NoiseLevel:
        return noise_level(self._sigma(position))

    def _space_levels(
        self, timesteps: TimestepArray, *, rounded: bool = True
    ) -> tuple[TimestepArray, FloatArray]:
        """Find the noise levels of timesteps, or those of a spacing, with their timesteps.

        Args:
            timesteps: ``(steps,)`` int64; with a spacing, only their number counts.
            rounded: Round the timesteps of Karras levels, rather than cut their fractions off.

        Raises:
            RequestError: Some steps would not change the noise level.
        """
        steps = len(timesteps)
        sigmas = timesteps_to_sigmas(timesteps, self.train_sigmas)
        spacing = find_spacing(self.config)
        if spacing is not None:
            sigmas = space_noise_levels(self.config, self.train_sigmas[::-1], steps)
            fractional = sigmas_to_timesteps(sigmas, self.train_sigmas)
            if spacing == "use_karras_sigmas" and rounded:
                fractional = fractional.round()
            timesteps = fractional.astype(np.int64)
        if np.any(np.diff(sigmas) >= 0):
            raise self.refuse_steps(steps, "fewer steps: some would not change the noise level")
        return timesteps, sigmas

    def _end_at_trained(self, sigmas: FloatArray, final_sigmas_type: str) -> FloatArray:
        """Append the level after the last step: none, or that of timestep 0.

        Raises:
            ConfigError: The levels have passed the last one before.
        """
        final = 0.0 if final_sigmas_type == "zero" else float(self.train_sigmas[0])
        if sigmas[-1] < final * (1 - ROUNDING):
            raise ConfigError(
                f"sigma_min={self.config.sigma_min} lies below the final noise level",
                allowed=f"{final} or more, or final_sigmas_type='zero'",
                fix="correct sigma_min in scheduler_config.json",
            )
        return np.append(sigmas, final).astype(np.float32)

    def _predict_clean(
        self, position: int, model_output: FloatArray, latents: FloatArray
    ) -> FloatArray:
        level, config = self._level(position), self.config
        arguments = (config.prediction_type, model_output, latents, level.alpha, level.sigma)
        clean = predict_clean(*arguments)
        return threshold_sample(config, clean) if config.thresholding else clean

    def _predict_noise(
        self, position: int, model_output: FloatArray, latents: FloatArray
    ) -> FloatArray:
        level, config = self._level(position), self.config
        if config.thresholding:
            clean = self._predict_clean(position, model_output, latents)
            return (latents - level.alpha * clean) / level.sigma
        return predict_noise(
            config.prediction_type, model_output, latents, level.alpha, level.sigma
        )
