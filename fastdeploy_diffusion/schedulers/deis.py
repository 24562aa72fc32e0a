"""DEIS: multistep, of up to third order, exact for noises that are polynomials in log sigma."""

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.polynomial import Polynomial

from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.base import DrawNoise
from fastdeploy_diffusion.schedulers.config import Magnitude, TimestepSpacing
from fastdeploy_diffusion.schedulers.lagrange import lagrange_basis
from fastdeploy_diffusion.schedulers.noise_levels import find_spacing
from fastdeploy_diffusion.schedulers.timesteps import space_interior_timesteps
from fastdeploy_diffusion.schedulers.unit_variance import (
    FEW_STEPS,
    UnitVarianceConfig,
    UnitVarianceScheduler,
)


@dataclass(frozen=True, kw_only=True)
class DEISConfig(UnitVarianceConfig):
    """Options of DEIS.

    Attributes:
        solver_order: Order of the multistep solver; 2 with guidance, 3 without.
        lower_order_final: Lower the order at the end, below 15 steps.
    """

    timestep_spacing: TimestepSpacing = "linspace"
    solver_order: Literal[1, 2, 3] = 2
    algorithm_type: Literal["deis"] = "deis"
    solver_type: Literal["logrho"] = "logrho"
    lower_order_final: bool = True
    use_flow_sigmas: Literal[False] | None = False
    flow_shift: Magnitude | None = 1.0
    use_dynamic_shifting: Literal[False] = False
    time_shift_type: Literal["exponential"] = "exponential"


class DEISScheduler(UnitVarianceScheduler[DEISConfig]):
    """ρAB-DEIS in ``log rho`` of https://arxiv.org/abs/2204.13902."""

    diffusers_name = "DEISMultistepScheduler"
    config_class = DEISConfig
    foreign_values = MappingProxyType(
        {
            ("algorithm_type", "dpmsolver"): "deis",
            ("algorithm_type", "dpmsolver++"): "deis",
            ("solver_type", "midpoint"): "logrho",
            ("solver_type", "heun"): "logrho",
            ("solver_type", "bh1"): "logrho",
            ("solver_type", "bh2"): "logrho",
        }
    )

    def __init__(self, config: DEISConfig) -> None:
        super().__init__(config)
        self._noises: list[FloatArray] = []  # newest first

    def _plan(self, steps: int) -> TimestepArray:
        total = self.config.num_train_timesteps
        timesteps = space_interior_timesteps(self.config, steps, total)
        timesteps, sigmas = self._space_levels(timesteps)
        # There is no final level of no noise; a spacing's last level is kept.
        spaced = find_spacing(self.config) is not None
        final = sigmas[-1] if spaced else self.train_sigmas[0]
        self.sigmas = np.append(sigmas, final).astype(np.float32)
        self._noises = []
        return timesteps

    def _step(
        self, position: int, model_output: FloatArray, latents: FloatArray, noise: DrawNoise
    ) -> FloatArray:
        predicted = self._predict_noise(position, model_output, latents)
        self._noises = [predicted, *self._noises][: self.config.solver_order]
        order = min(len(self._noises), self._highest_order(position))
        start, end = self._level(position), self._level(position + 1)
        nodes = [math.log(self._sigma(position - back)) for back in range(order)]
        result = end.alpha / start.alpha * latents
        for basis, predicted in zip(lagrange_basis(nodes), self._noises, strict=False):
            weight = _integrate(basis, self._sigma(position), self._sigma(position + 1))
            result = result + end.alpha * weight * predicted
        return result

    def _highest_order(self, position: int) -> int:
        remaining = len(self.planned_timesteps) - position
        if self.config.lower_order_final and len(self.planned_timesteps) < FEW_STEPS:
            return min(remaining, self.config.solver_order)
        return self.config.solver_order


def _integrate(polynomial: Polynomial, start: float, end: float) -> float:
    """Integrate a polynomial in ``log sigma`` over sigma, from one level to another."""
    # By parts: the integral of P(x) exp(x) is (P - P' + P'' …) exp(x).
    primitive, derivative = polynomial, polynomial
    for sign in (-1, 1):
        derivative = derivative.deriv()
        primitive = primitive + sign * derivative
    return float(primitive(math.log(end)) * end - primitive(math.log(start)) * start)
