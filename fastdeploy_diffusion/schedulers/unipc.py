"""UniPC: a multistep predictor, and a corrector that costs no call of the denoiser."""

import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.base import DrawNoise
from fastdeploy_diffusion.schedulers.config import FinalSigma, Magnitude, TimestepSpacing
from fastdeploy_diffusion.schedulers.noise_levels import find_spacing
from fastdeploy_diffusion.schedulers.timesteps import space_interior_timesteps
from fastdeploy_diffusion.schedulers.unit_variance import (
    ROUNDING,
    UnitVarianceConfig,
    UnitVarianceScheduler,
)


@dataclass(frozen=True, kw_only=True)
class UniPCConfig(UnitVarianceConfig):
    """Options of UniPC.

    Attributes:
        solver_order: Order of the predictor; 2 with guidance, 3 without.
        predict_x0: Work on the clean sample rather than on the noise.
        solver_type: The function B(h) of the paper: h itself, or ``exp(h) - 1``.
        lower_order_final: Lower the order at the end.
        disable_corrector: Positions of steps after which nothing is corrected.
        final_sigmas_type: Noise level after the last step: none, or that of timestep 0.
        rescale_betas_zero_snr: Rescale the schedule: the last timestep is (almost) pure noise.
    """

    timestep_spacing: TimestepSpacing = "linspace"
    solver_order: Annotated[int, Field(ge=1, le=6)] = 2
    predict_x0: bool = True
    solver_type: Literal["bh1", "bh2"] = "bh2"
    lower_order_final: bool = True
    disable_corrector: list[int] = field(default_factory=list)
    solver_p: None = None
    final_sigmas_type: FinalSigma = "zero"
    rescale_betas_zero_snr: bool = False
    use_flow_sigmas: Literal[False] | None = False
    flow_shift: Magnitude | None = 1.0
    use_dynamic_shifting: Literal[False] = False
    time_shift_type: Literal["exponential"] = "exponential"
    shift_terminal: None = None


class UniPCScheduler(UnitVarianceScheduler[UniPCConfig]):
    """Algorithms 5 to 8 of https://arxiv.org/abs/2302.04867.

    Raises:
        ConfigError: The options do not go together.
    """

    diffusers_name = "UniPCMultistepScheduler"
    config_class = UniPCConfig
    foreign_values = MappingProxyType(
        {("solver_type", other): "bh2" for other in ("midpoint", "heun", "logrho")}
    )

    def __init__(self, config: UniPCConfig) -> None:
        ends_clean = config.predict_x0 and (config.lower_order_final or config.solver_order == 1)
        if config.final_sigmas_type == "zero" and not ends_clean:
            raise ConfigError(
                f"predict_x0={config.predict_x0} with lower_order_final={config.lower_order_final} "
                "cannot step to final_sigmas_type='zero'",
                allowed="final_sigmas_type='sigma_min', or both options true",
                fix="set final_sigmas_type to 'sigma_min' in scheduler_config.json",
            )
        super().__init__(config, zero_terminal_snr=config.rescale_betas_zero_snr)
        self._outputs: list[FloatArray] = []  # newest first
        self._last: tuple[FloatArray, int] | None = None  # latents and order of the last step

    def _plan(self, steps: int) -> TimestepArray:
        config = self.config
        timesteps = space_interior_timesteps(config, steps, config.num_train_timesteps)
        timesteps, sigmas = self._space_levels(timesteps)
        spaced = find_spacing(config) is not None
        if spaced and config.final_sigmas_type == "sigma_min":
            self.sigmas = np.append(sigmas, sigmas[-1]).astype(np.float32)
        else:
            self.sigmas = self._end_at_trained(sigmas, config.final_sigmas_type)
        self._outputs, self._last = [], None
        return timesteps

    def _step(
        self, position: int, model_output: FloatArray, latents: FloatArray, noise: DrawNoise
    ) -> FloatArray:
        config = self.config
        predict = self._predict_clean if config.predict_x0 else self._predict_noise
        output = predict(position, model_output, latents)
        if self._last is not None and position - 1 not in config.disable_corrector:
            latents = self._advance(position - 1, *self._last, corrected_by=output)
        self._outputs = [output, *self._outputs][: config.solver_order]
        order = min(len(self._outputs), config.solver_order)
        if config.lower_order_final:
            order = min(order, len(self.planned_timesteps) - position)
        self._last = latents, order
        return self._advance(position, latents, order)

    def _advance(
        self,
        position: int,
        latents: FloatArray,
        order: int,
        corrected_by: FloatArray | None = None,
    ) -> FloatArray:
        """Step from a position to the next, predicting, or correcting with the output found there.

        Args:
            position: Of the newest of the outputs.
            latents: At the position.
            order: Number of outputs to use.
            corrected_by: Output at the next position.
        """
        start, end = self._level(position), self._level(position + 1)
        h = end.log_snr - start.log_snr
        if h < ROUNDING:
            return latents  # spaced levels may repeat the last one
        newest = self._outputs[0]
        differences = [output - newest for output in self._outputs[1:order]]
        ratios = [
            (self._level(position - back).log_snr - start.log_snr) / h for back in range(1, order)
        ]
        if corrected_by is not None:
            differences, ratios = [*differences, corrected_by - newest], [*ratios, 1.0]
        signed = -h if self.config.predict_x0 else h
        growth = math.expm1(signed)
        if self.config.predict_x0:
            result = end.sigma / start.sigma * latents - end.alpha * growth * newest
            scale = end.alpha
        else:
            result = end.alpha / start.alpha * latents - end.sigma * growth * newest
            scale = end.sigma
        weights = self._weigh(signed, ratios)
        for weight, ratio, difference in zip(weights, ratios, differences, strict=True):
            result = result - scale * weight / ratio * difference
        return result

    def _weigh(self, h: float, ratios: list[float]) -> list[float]:
        """Solve for the weights of difference quotients, times B(h): equation 5 of the paper."""
        if not ratios:
            return []
        scale = h if self.config.solver_type == "bh1" else math.expm1(h)
        if len(ratios) == 1:  # as in diffusers, for predictor and corrector
            return [0.5 * scale]
        phi, factorial, wanted = math.expm1(h) / h - 1, 1, []
        for power in range(1, len(ratios) + 1):
            wanted.append(phi * factorial)
            factorial *= power + 1
            phi = phi / h - 1 / factorial
        powers = np.array(ratios) ** np.arange(len(ratios))[:, None]
        return [float(weight) for weight in np.linalg.solve(powers, np.array(wanted))]
