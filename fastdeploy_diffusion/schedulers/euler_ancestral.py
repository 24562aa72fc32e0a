"""Euler ancestral: an Euler step to less noise than wanted, then fresh noise."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.base import DrawNoise
from fastdeploy_diffusion.schedulers.config import SchedulerConfig, TimestepSpacing
from fastdeploy_diffusion.schedulers.predictions import predict_clean_from_sigma
from fastdeploy_diffusion.schedulers.sigma import SigmaScheduler, split_noise
from fastdeploy_diffusion.schedulers.timesteps import (
    space_fractional_timesteps,
    timesteps_to_sigmas,
)


@dataclass(frozen=True, kw_only=True)
class EulerAncestralConfig(SchedulerConfig):
    """Options of Euler ancestral.

    Attributes:
        rescale_betas_zero_snr: Rescale the schedule: the last timestep is (almost) pure noise.
    """

    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    timestep_spacing: TimestepSpacing = "linspace"
    rescale_betas_zero_snr: bool = False


class EulerAncestralScheduler(SigmaScheduler[EulerAncestralConfig]):
    """``sample_euler_ancestral`` of https://github.com/crowsonkb/k-diffusion."""

    diffusers_name = "EulerAncestralDiscreteScheduler"
    config_class = EulerAncestralConfig

    def __init__(self, config: EulerAncestralConfig) -> None:
        super().__init__(config, zero_terminal_snr=config.rescale_betas_zero_snr)

    def _plan(self, steps: int) -> TimestepArray:
        timesteps = space_fractional_timesteps(self.config, steps).astype(np.float32)
        sigmas = timesteps_to_sigmas(timesteps, self.train_sigmas)
        self.sigmas = np.append(sigmas, 0.0).astype(np.float32)
        return timesteps

    def _step(
        self, position: int, model_output: FloatArray, latents: FloatArray, noise: DrawNoise
    ) -> FloatArray:
        sigma, sigma_next = self._sigma(position), self._sigma(position + 1)
        clean = predict_clean_from_sigma(self.config.prediction_type, model_output, latents, sigma)
        sigma_down, sigma_up = split_noise(sigma, sigma_next)
        slope = (latents - clean) / sigma
        # The last step draws too, to no effect: what draws next must see diffusers' stream.
        return latents + slope * (sigma_down - sigma) + sigma_up * noise()
