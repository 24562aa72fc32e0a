"""Euler: one first-order step of the probability-flow ODE per call."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.base import DrawNoise
from fastdeploy_diffusion.schedulers.config import FinalSigma, TimestepSpacing
from fastdeploy_diffusion.schedulers.noise_levels import NoiseLevelsConfig
from fastdeploy_diffusion.schedulers.predictions import predict_clean_from_sigma
from fastdeploy_diffusion.schedulers.spaced_sigma import SpacedSigmaScheduler
from fastdeploy_diffusion.schedulers.timesteps import sigmas_to_timesteps, timesteps_to_sigmas


@dataclass(frozen=True, kw_only=True)
class EulerConfig(NoiseLevelsConfig):
    """Options of Euler.

    Attributes:
        final_sigmas_type: Noise level after the last step: none, or that of timestep 0.
        rescale_betas_zero_snr: Rescale the schedule: the last timestep is (almost) pure noise.
    """

    timestep_spacing: TimestepSpacing = "linspace"
    timestep_type: Literal["discrete"] = "discrete"
    interpolation_type: Literal["linear"] = "linear"
    final_sigmas_type: FinalSigma = "zero"
    rescale_betas_zero_snr: bool = False


class EulerScheduler(SpacedSigmaScheduler[EulerConfig]):
    """Algorithm 2 of https://arxiv.org/abs/2206.00364 without churn, first order only."""

    diffusers_name = "EulerDiscreteScheduler"
    config_class = EulerConfig
    takes_timesteps = True
    takes_sigmas = True

    def __init__(self, config: EulerConfig) -> None:
        super().__init__(config, zero_terminal_snr=config.rescale_betas_zero_snr)

    def _plan(self, steps: int) -> TimestepArray:
        return self._lay_out(*self._space(steps))

    def _plan_timesteps(self, timesteps: TimestepArray) -> TimestepArray:
        return self._lay_out(timesteps, timesteps_to_sigmas(timesteps, self.train_sigmas))

    def _plan_sigmas(self, sigmas: FloatArray) -> TimestepArray:
        self.sigmas = sigmas
        return sigmas_to_timesteps(sigmas[:-1], self.train_sigmas).astype(np.float32)

    def _lay_out(self, timesteps: TimestepArray, sigmas: FloatArray) -> TimestepArray:
        final = 0.0 if self.config.final_sigmas_type == "zero" else self.train_sigmas[0]
        self.sigmas = np.append(sigmas, final).astype(np.float32)
        return timesteps.astype(np.float32)

    def _step(
        self, position: int, model_output: FloatArray, latents: FloatArray, noise: DrawNoise
    ) -> FloatArray:
        sigma, sigma_next = self._sigma(position), self._sigma(position + 1)
        clean = predict_clean_from_sigma(self.config.prediction_type, model_output, latents, sigma)
        slope = (latents - clean) / sigma
        return latents + slope * (sigma_next - sigma)
