"""Single-step DPM-Solver: each step of two or three calls takes its own outputs only."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.base import DrawNoise
from fastdeploy_diffusion.schedulers.config import FinalSigma, Magnitude, TimestepSpacing
from fastdeploy_diffusion.schedulers.dpm_config import DPM_SOLVER_SYNONYMS
from fastdeploy_diffusion.schedulers.dpm_update import curvature_weight, update_weights
from fastdeploy_diffusion.schedulers.unit_variance import (
    ROUNDING,
    UnitVarianceConfig,
    UnitVarianceScheduler,
)


@dataclass(frozen=True, kw_only=True)
class DPMSolverSinglestepConfig(UnitVarianceConfig):
    """Options of single-step DPM-Solver; its timesteps are always spaced as "linspace".

    Attributes:
        solver_order: Order of a step, and the calls that it takes; 2 with guidance, 3 without.
        algorithm_type: ODE or SDE, on noise or (``++``) on clean samples.
        solver_type: How a step weighs the slope.
        lower_order_final: Lower the order at the end; done anyway where the number of calls is no
            multiple of the order, or the last step goes to no noise.
        final_sigmas_type: Noise level after the last step: none, or that of timestep 0.
        lambda_min_clipped: Leave out timesteps whose log-SNR is lower.
        variance_type: DDPM's, for files that have it; the denoiser must not predict a variance.
    """

    timestep_spacing: TimestepSpacing = "linspace"
    solver_order: Literal[1, 2, 3] = 2
    algorithm_type: Literal["dpmsolver", "dpmsolver++", "sde-dpmsolver++"] = "dpmsolver++"
    solver_type: Literal["midpoint", "heun"] = "midpoint"
    lower_order_final: bool = False
    final_sigmas_type: FinalSigma = "zero"
    lambda_min_clipped: Annotated[float, Field(le=0)] = -math.inf
    variance_type: (
        Literal["fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"] | None
    ) = None
    use_flow_sigmas: Literal[False] | None = False
    flow_shift: Magnitude | None = 1.0
    use_dynamic_shifting: Literal[False] = False
    time_shift_type: Literal["exponential"] = "exponential"


class DPMSolverSinglestepScheduler(UnitVarianceScheduler[DPMSolverSinglestepConfig]):
    """DPM-Solver and DPM-Solver++ 2S and 3S, https://arxiv.org/abs/2206.00927 and https://arxiv.org/abs/2211.01095.

    Raises:
        ConfigError: The options do not go together.
    """

    diffusers_name = "DPMSolverSinglestepScheduler"
    config_class = DPMSolverSinglestepConfig
    foreign_values = DPM_SOLVER_SYNONYMS
    takes_timesteps = True

    def __init__(self, config: DPMSolverSinglestepConfig) -> None:
        if not config.algorithm_type.endswith("++") and config.final_sigmas_type == "zero":
            raise ConfigError(
                f"algorithm_type={config.algorithm_type!r} cannot step to final_sigmas_type='zero'",
                allowed="final_sigmas_type='sigma_min', or a '++' algorithm",
                fix="set final_sigmas_type to 'sigma_min' in scheduler_config.json",
            )
        super().__init__(config)
        self._orders: list[int] = []
        self._outputs: list[FloatArray] = []  # newest first
        self._start: FloatArray = np.empty(0)  # latents that a step of several calls began with

    def _plan(self, steps: int) -> TimestepArray:
        log_snr = -np.log(self.train_sigmas[::-1])  # ascending
        clipped = int(np.searchsorted(log_snr, self.config.lambda_min_clipped))
        spaced = np.linspace(0, len(log_snr) - 1 - clipped, steps + 1)
        return self._lay_out(spaced.round()[:0:-1].astype(np.int64))

    def _plan_timesteps(self, timesteps: TimestepArray) -> TimestepArray:
        return self._lay_out(timesteps.astype(np.int64))

    def _lay_out(self, timesteps: TimestepArray) -> TimestepArray:
        timesteps, sigmas = self._space_levels(timesteps)
        self.sigmas = self._end_at_trained(sigmas, self.config.final_sigmas_type)
        self._orders, self._outputs = self._list_orders(len(timesteps)), []
        return timesteps

    def _list_orders(self, calls: int) -> list[int]:
        """List the order of each call: 1, 2, 3 are the calls of one third-order step."""
        config, order = self.config, self.config.solver_order
        to_zero = config.final_sigmas_type == "zero"
        whole = list(range(1, order + 1))
        if not (config.lower_order_final or to_zero or calls % order):
            return whole * (calls // order)
        # A last step of fewer calls; of a whole number, the last is cut in two.
        last = calls % order
        if order == 1 or last:
            orders = whole * (calls // order) + whole[:last]
        else:
            orders = whole * (calls // order - 1) + [*whole[:-1], 1]
        return [*orders[:-1], 1] if to_zero else orders

    def _step(
        self, position: int, model_output: FloatArray, latents: FloatArray, noise: DrawNoise
    ) -> FloatArray:
        algorithm = self.config.algorithm_type
        predict = self._predict_clean if algorithm.endswith("++") else self._predict_noise
        output = predict(position, model_output, latents)
        self._outputs = [output, *self._outputs][: self.config.solver_order]
        order = min(self._orders[position], len(self._outputs))
        fresh_noise = noise() if algorithm.startswith("sde") else None
        if order == 1:
            self._start = latents

        start, end = self._level(position - order + 1), self._level(position + 1)
        h = end.log_snr - start.log_snr
        if h < ROUNDING:
            return self._start  # spaced levels may reach the final one early
        weights = update_weights(algorithm, start, end)
        oldest = self._outputs[order - 1]
        result = weights.latents * self._start + weights.output * oldest
        # Difference quotients from the step's start, newest first.
        slopes = [
            (output - oldest) * (h / (self._level(position - back).log_snr - start.log_snr))
            for back, output in enumerate(self._outputs[: order - 1])
        ]
        is_midpoint = self.config.solver_type == "midpoint"
        if order == 2:
            result += (0.5 * weights.output if is_midpoint else weights.slope) * slopes[0]
        elif order == 3 and is_midpoint:
            result += weights.slope * slopes[0]
        elif order == 3:
            far, near = (
                (self._level(position - back).log_snr - start.log_snr) / h for back in range(2)
            )
            slope = (far * slopes[1] - near * slopes[0]) / (far - near)
            curvature = 2 * (slopes[0] - slopes[1]) / (far - near)
            result += weights.slope * slope
            result += curvature_weight(algorithm, start, end) * curvature
        return result if fresh_noise is None else result + weights.noise * fresh_noise
