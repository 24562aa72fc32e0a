"""Euler: one first-order step of the probability-flow ODE per call."""

from dataclasses import dataclass
from typing import Literal

from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.base import DrawNoise
from fastdeploy_diffusion.schedulers.config import FinalSigma, TimestepSpacing
from fastdeploy_diffusion.schedulers.karras import KarrasConfig, karras_sigmas
from fastdeploy_diffusion.schedulers.predictions import predict_clean_from_sigma
from fastdeploy_diffusion.schedulers.sigma import SigmaScheduler
from fastdeploy_diffusion.schedulers.timesteps import (
    sigmas_to_timesteps,
    space_fractional_timesteps,
    timesteps_to_sigmas,
)


@dataclass(frozen=True, kw_only=True)
class EulerConfig(KarrasConfig):
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


class EulerScheduler(SigmaScheduler[EulerConfig]):
    """Algorithm 2 of https://arxiv.org/abs/2206.00364 without churn, first order only."""

    diffusers_name = "EulerDiscreteScheduler"
    config_class = EulerConfig

    def __init__(self, config: EulerConfig) -> None:
        super().__init__(config, zero_terminal_snr=config.rescale_betas_zero_snr)

    def _plan(self, steps: int) -> TimestepArray:
        timesteps = space_fractional_timesteps(self.config, steps)
        sigmas = timesteps_to_sigmas(timesteps, self.train_sigmas)
        if self.config.use_karras_sigmas:
            sigmas = karras_sigmas(self.config, sigmas, steps)
            timesteps = sigmas_to_timesteps(sigmas, self.train_sigmas).astype("float32")
        to_zero = self.config.final_sigmas_type == "zero"
        self._set_sigmas(sigmas, 0.0 if to_zero else float(self.train_sigmas[0]))
        return timesteps

    def _step(
        self, position: int, model_output: FloatArray, latents: FloatArray, noise: DrawNoise
    ) -> FloatArray:
        sigma, sigma_next = self._sigma(position), self._sigma(position + 1)
        clean = predict_clean_from_sigma(self.config.prediction_type, model_output, latents, sigma)
        slope = (latents - clean) / sigma
        return latents + slope * (sigma_next - sigma)
