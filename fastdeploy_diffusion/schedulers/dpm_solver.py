"""DPM-Solver: multistep solvers of first to third order in the log signal-to-noise ratio."""

import math
from itertools import pairwise

import numpy as np

from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.base import DrawNoise
from fastdeploy_diffusion.schedulers.dpm_config import (
    DPM_SOLVER_SYNONYMS,
    DPMSolverConfig,
    check_combination,
)
from fastdeploy_diffusion.schedulers.dpm_update import curvature_weight, update_weights
from fastdeploy_diffusion.schedulers.timesteps import space_interior_timesteps
from fastdeploy_diffusion.schedulers.unit_variance import (
    FEW_STEPS,
    ROUNDING,
    UnitVarianceScheduler,
)


class DPMSolverScheduler(UnitVarianceScheduler[DPMSolverConfig]):
    """DPM-Solver and DPM-Solver++, https://arxiv.org/abs/2206.00927 and https://arxiv.org/abs/2211.01095.

    Raises:
        ConfigError: The options do not go together.
    """

    diffusers_name = "DPMSolverMultistepScheduler"
    config_class = DPMSolverConfig
    foreign_values = DPM_SOLVER_SYNONYMS
    takes_timesteps = True

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

    def _plan(self, steps: int) -> TimestepArray:
        log_snr = -np.log(self.train_sigmas[::-1])  # ascending
        clipped = int(np.searchsorted(log_snr, self.config.lambda_min_clipped))
        timesteps = space_interior_timesteps(self.config, steps, len(log_snr) - clipped)
        return self._lay_out(timesteps)

    def _plan_timesteps(self, timesteps: TimestepArray) -> TimestepArray:
        return self._lay_out(timesteps.astype(np.int64))

    def _lay_out(self, timesteps: TimestepArray) -> TimestepArray:
        config = self.config
        is_rounded = config.beta_schedule != "squaredcos_cap_v2"
        timesteps, sigmas = self._space_levels(timesteps, rounded=is_rounded)
        self.sigmas = self._end_at_trained(sigmas, config.final_sigmas_type)
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

        start, end = (self._level(index) for index in (position, position + 1))
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
        log_snrs = [self._level(position + 1 - i).log_snr for i in range(order + 1)]
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
        is_plus = self.config.algorithm_type.endswith("++")
        predict = self._predict_clean if is_plus else self._predict_noise
        return predict(position, model_output, latents)
