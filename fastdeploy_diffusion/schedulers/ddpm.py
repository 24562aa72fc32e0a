"""DDPM: ancestral sampling of the trained Markov chain."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.base import DrawNoise
from fastdeploy_diffusion.schedulers.clipping import ClippingConfig, clip_sample
from fastdeploy_diffusion.schedulers.predictions import predict_clean
from fastdeploy_diffusion.schedulers.timesteps import space_timesteps
from fastdeploy_diffusion.schedulers.variance_preserving import VariancePreservingScheduler


@dataclass(frozen=True, kw_only=True)
class DDPMConfig(ClippingConfig):
    """Options of DDPM.

    Attributes:
        variance_type: Variance of the noise added by a step; "learned" and "learned_range" take it
            from the second half of the denoiser's channels. "fixed_large_log" is left out: in
            diffusers it takes the square root of a negative logarithm, so it only gives NaN.
    """

    variance_type: Literal[
        "fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range"
    ] = "fixed_small"


class DDPMScheduler(VariancePreservingScheduler[DDPMConfig]):
    """Denoising diffusion probabilistic models, https://arxiv.org/abs/2006.11239."""

    diffusers_name = "DDPMScheduler"
    config_class = DDPMConfig
    takes_timesteps = True

    def __init__(self, config: DDPMConfig) -> None:
        super().__init__(config, zero_terminal_snr=config.rescale_betas_zero_snr)

    def _plan(self, steps: int) -> TimestepArray:
        return space_timesteps(self.config, steps)

    def _plan_timesteps(self, timesteps: TimestepArray) -> TimestepArray:
        return timesteps.astype(np.int64)

    def output_shape(self, latents_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the denoiser's output: twice the channels with a learned variance."""
        if not self.config.variance_type.startswith("learned"):
            return latents_shape
        return (latents_shape[0], 2 * latents_shape[1], *latents_shape[2:])

    def _step(
        self, position: int, model_output: FloatArray, latents: FloatArray, noise: DrawNoise
    ) -> FloatArray:
        config, timestep = self.config, int(self.planned_timesteps[position])
        # Empty unless the variance is learned.
        output, predicted_variance = np.split(model_output, [latents.shape[1]], axis=1)
        following = self.planned_timesteps[position + 1 :]
        power = self.signal_power(timestep)
        power_next = self.signal_power(int(following[0]) if len(following) else -1)
        alpha = power / power_next
        beta = 1 - alpha

        clean = predict_clean(
            config.prediction_type, output, latents, math.sqrt(power), math.sqrt(1 - power)
        )
        clean = clip_sample(config, clean)
        # Equation 7: the mean of the posterior q(x_next | x, clean).
        clean_weight = math.sqrt(power_next) * beta / (1 - power)
        latents_weight = math.sqrt(alpha) * (1 - power_next) / (1 - power)
        mean = clean_weight * clean + latents_weight * latents
        if timestep == 0:
            return mean
        posterior_variance = max((1 - power_next) / (1 - power) * beta, 1e-20)
        return mean + self._deviation(posterior_variance, beta, predicted_variance) * noise()

    def _deviation(
        self, posterior_variance: float, beta: float, predicted: FloatArray
    ) -> FloatArray | float:
        """Standard deviation of the noise: the two fixed bounds of section 3.2, or learned."""
        kind = self.config.variance_type
        if kind == "learned":
            return np.sqrt(predicted)
        if kind == "learned_range":
            # Equation 15 of https://arxiv.org/abs/2102.09672; half the logarithm: the square root.
            share = (predicted + 1) / 2
            log_variance = share * math.log(beta) + (1 - share) * math.log(posterior_variance)
            return np.exp(0.5 * log_variance)
        return math.sqrt(beta if kind == "fixed_large" else posterior_variance)
