"""LMS: linear multistep, of up to fourth order in the noise level."""

from dataclasses import dataclass

import numpy as np

from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.base import DrawNoise
from fastdeploy_diffusion.schedulers.config import TimestepSpacing
from fastdeploy_diffusion.schedulers.lagrange import lagrange_basis
from fastdeploy_diffusion.schedulers.noise_levels import NoiseLevelsConfig
from fastdeploy_diffusion.schedulers.predictions import predict_clean_from_sigma
from fastdeploy_diffusion.schedulers.spaced_sigma import SpacedSigmaScheduler

ORDER = 4


@dataclass(frozen=True, kw_only=True)
class LMSConfig(NoiseLevelsConfig):
    """Options of LMS."""

    timestep_spacing: TimestepSpacing = "linspace"


class LMSScheduler(SpacedSigmaScheduler[LMSConfig]):
    """``sample_lms`` of https://github.com/crowsonkb/k-diffusion: Adams–Bashforth, uneven steps."""

    diffusers_name = "LMSDiscreteScheduler"
    config_class = LMSConfig

    def __init__(self, config: LMSConfig) -> None:
        super().__init__(config)
        self._slopes: list[FloatArray] = []  # newest first

    def _plan(self, steps: int) -> TimestepArray:
        timesteps, sigmas = self._space(steps)
        self.sigmas = np.append(sigmas, 0.0).astype(np.float32)
        self._slopes = []
        return timesteps

    def _step(
        self, position: int, model_output: FloatArray, latents: FloatArray, noise: DrawNoise
    ) -> FloatArray:
        sigma = self._sigma(position)
        clean = predict_clean_from_sigma(self.config.prediction_type, model_output, latents, sigma)
        self._slopes = [(latents - clean) / sigma, *self._slopes][:ORDER]
        # Begun in the middle, diffusers weighs the few slopes there are as the first of many.
        order = min(position + 1, ORDER)
        nodes = [self._sigma(position - back) - sigma for back in range(order)]
        for basis, slope in zip(lagrange_basis(nodes), self._slopes, strict=False):
            weight = basis.integ()(self._sigma(position + 1) - sigma)
            latents = latents + float(weight) * slope
        return latents
