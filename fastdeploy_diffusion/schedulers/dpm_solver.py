"""DPM-Solver: multistep solvers of first to third order in the log signal-to-noise ratio."""

import math
from itertools import pairwise

import numpy as np

from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.base import DrawNoise
from fastdeploy_diffusion.schedulers.clipping import threshold_sample
from fastdeploy_diffusion.schedulers.dpm_config import DPMSolverConfig, check_combination
from fastdeploy_diffusion.schedulers.dpm_update import (
    curvature_weight,
    noise_level,
    update_weights,
)
from fastdeploy_diffusion.schedulers.karras import karras_sigmas
from fastdeploy_diffusion.schedulers.predictions import predict_clean, predict_noise
from fastdeploy_diffusion.schedulers.sigma import SigmaScheduler
from fastdeploy_diffusion.schedulers.timesteps import (
    sigmas_to_timesteps,
    space_interior_timesteps,
    timesteps_to_sigmas,
)

# With fewer steps than this, diffusers lowers the order at the end for stability.
FEW_STEPS = 15
# Noise levels closer than this, relatively, are the same one rounded to float32.
ROUNDING = 1e-6


class DPMSolverScheduler(SigmaScheduler[DPMSolverConfig]):
    """DPM-Solver and DPM-Solver++, https://arxiv.org/abs/2206.00927 and https://arxiv.org/abs/2211.01095.

    Its latents have unit variance, unlike those of the other schedulers that work on sigmas.

    Raises:
        ConfigError: The options do not go together.
    """

    diffusers_name = "DPMSolverMultistepScheduler"
    config_class = DPMSolverConfig

    def __init__(self, config: DPMSolverConfig) -> None:
        check_combination(config)
        super().__init__(config, zero_terminal_snr=config.rescale_betas_zero_snr)
        cleanest = -math.log(self.train_sigmas[0])
        if config.lambda_min_clipped >= cleanest:
            raise ConfigError(
                f"lambda_min_clipped={config.lambda_min_clipped} leaves out every timestep",
                allowed=f"less than {cleanest:g}, and -5.1 in published models",
                fix="correct lambda_min_clipped in scheduler_config.json",
            )
        self._outputs: list[FloatArray] = []  # newest first

    @property
    def init_noise_sigma(self) -> float:
        """Always 1: the variance is preserved."""
        return 1.0

    def scale_model_input(self, latents: FloatArray, timestep: float) -> FloatArray:
        """Return the latents as they are."""
        return latents

    def add_noise(self, original: FloatArray, noise: FloatArray, timestep: float) -> FloatArray:
        """Noise clean latents to the level of one of this request's timesteps."""
        level = noise_level(self._sigma(self.index_of(timestep)))
        return level.alpha * original + level.sigma * noise

    def _plan(self, steps: int) -> TimestepArray:
        log_snr = -np.log(self.train_sigmas[::-1])  # ascending
        clipped = int(np.searchsorted(log_snr, self.config.lambda_min_clipped))
        timesteps = space_interior_timesteps(self.config, steps, len(log_snr) - clipped)
        sigmas = timesteps_to_sigmas(timesteps, self.train_sigmas)
        if self.config.use_karras_sigmas:
            sigmas = karras_sigmas(self.config, self.train_sigmas[::-1], steps)
            fractional = sigmas_to_timesteps(sigmas, self.train_sigmas)
            if self.config.beta_schedule != "squaredcos_cap_v2":
                fractional = fractional.round()
            timesteps = fractional.astype(np.int64)
        if np.any(np.diff(sigmas) >= 0):
            raise self.refuse_steps(steps, "fewer steps: some would not change the noise level")
        final = 0.0 if self.config.final_sigmas_type == "zero" else float(self.train_sigmas[0])
        if sigmas[-1] < final * (1 - ROUNDING):
            raise ConfigError(
                f"sigma_min={self.config.sigma_min} lies below the final noise level",
                allowed=f"{final} or more, or final_sigmas_type='zero'",
                fix="correct sigma_min in scheduler_config.json",
            )
        self._set_sigmas(sigmas, final)
        self._outputs = []
        return timesteps

    def _step(
        self, position: int, model_output: FloatArray, latents: FloatArray, noise: DrawNoise
    ) -> FloatArray:
        algorithm = self.config.algorithm_type
        self._outputs = [self._convert(position, model_output, latents), *self._outputs]
        self._outputs = self._outputs[: self.config.solver_order]
        order = min(len(self._outputs), self._highest_order(position))
        fresh_noise = noise() if algorithm.startswith("sde") else None

        start, end = (noise_level(self._sigma(index)) for index in (position, position + 1))
        if end.log_snr - start.log_snr < ROUNDING:
            return latents  # Karras levels may reach the final one early
        weights = update_weights(algorithm, start, end)
        result = weights.latents * latents + weights.output * self._outputs[0]
        if order > 1:
            slope, curvature = self._differentiate(position, order)
            midpoint = self.config.solver_type == "midpoint" and order == 2
            result += (0.5 * weights.output if midpoint else weights.slope) * slope
            if order == 3:
                result += curvature_weight(algorithm, start, end) * curvature
        if fresh_noise is not None:
            result += weights.noise * fresh_noise
        return result

    def _differentiate(self, position: int, order: int) -> tuple[FloatArray, FloatArray | float]:
        """Estimate the outputs' first and, for third order, second derivative, per step length."""
        log_snrs = [noise_level(self._sigma(position + 1 - i)).log_snr for i in range(order + 1)]
        h, *before = (newer - older for newer, older in pairwise(log_snrs))
        ratios = [length / h for length in before]
        slopes = [
            (newer - older) / ratio
            for (newer, older), ratio in zip(pairwise(self._outputs[:order]), ratios, strict=True)
        ]
        if order == 2:
            return slopes[0], 0.0
        change = (slopes[0] - slopes[1]) / (ratios[0] + ratios[1])
        return slopes[0] + ratios[0] * change, change

    def _highest_order(self, position: int) -> int:
        """Choose the order that stability allows at a position."""
        config = self.config
        remaining = len(self.planned_timesteps) - position
        lower = config.lower_order_final and len(self.planned_timesteps) < FEW_STEPS
        if remaining == 1 and (
            lower or config.euler_at_final or config.final_sigmas_type == "zero"
        ):
            return 1
        return 2 if remaining == 2 and lower else config.solver_order

    def _convert(self, position: int, model_output: FloatArray, latents: FloatArray) -> FloatArray:
        """Predict the clean sample for the ``++`` algorithms, the noise for the others."""
        config = self.config
        level = noise_level(self._sigma(position))
        arguments = (config.prediction_type, model_output, latents, level.alpha, level.sigma)
        if config.algorithm_type.endswith("++"):
            clean = predict_clean(*arguments)
            return threshold_sample(config, clean) if config.thresholding else clean
        if not config.thresholding:
            return predict_noise(*arguments)
        clean = threshold_sample(config, predict_clean(*arguments))
        return (latents - level.alpha * clean) / level.sigma
