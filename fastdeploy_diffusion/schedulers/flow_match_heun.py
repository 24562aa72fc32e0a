"""Heun along rectified flows: an Euler step, then a correction, but for the last step."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.base import DrawNoise
from fastdeploy_diffusion.schedulers.config import SchedulerConfig
from fastdeploy_diffusion.schedulers.flow_match import FlowMatchScheduler
from fastdeploy_diffusion.schedulers.heun import EulerStep, repeat_after_first


@dataclass(frozen=True, kw_only=True)
class FlowMatchHeunConfig(SchedulerConfig):
    """How the share of noise falls from 1 to 0; of the inherited options only the length counts.

    Attributes:
        shift: Moves steps towards noise (above 1), for any size of the picture.
    """

    shift: Annotated[float, Field(ge=0.001, le=1000)] = 1.0


class FlowMatchHeunScheduler(FlowMatchScheduler[FlowMatchHeunConfig]):
    """Algorithm 1 of https://arxiv.org/abs/2206.00364 without churn, on a predicted velocity."""

    diffusers_name = "FlowMatchHeunDiscreteScheduler"
    config_class = FlowMatchHeunConfig
    order = 2

    def __init__(self, config: FlowMatchHeunConfig) -> None:
        super().__init__(config)
        self._first_half: EulerStep | None = None

    def _plan(self, steps: int) -> TimestepArray:
        length = self.config.num_train_timesteps
        high, low = self._shift(np.array([1.0, 1.0 / length], np.float32))
        # The ends are shifted already: diffusers shifts twice.
        sigmas = self._shift(np.linspace(float(high) * length, float(low) * length, steps) / length)
        sigmas = sigmas.astype(np.float32)
        self.sigmas = np.append(repeat_after_first(sigmas), np.float32(0))
        self._first_half = None
        return repeat_after_first(sigmas * np.float32(length))

    def _shift(self, sigmas: FloatArray) -> FloatArray:
        shift = self.config.shift
        return np.asarray(shift * sigmas / (1 + (shift - 1) * sigmas))

    def _step(
        self, position: int, model_output: FloatArray, latents: FloatArray, noise: DrawNoise
    ) -> FloatArray:
        half = self._first_half
        if half is None:
            sigma, sigma_next = (float(each) for each in self.sigmas[position : position + 2])
            half = EulerStep(latents, model_output, sigma_next - sigma)
            self._first_half = half
            return half.latents + half.slope * half.length
        self._first_half = None
        return half.latents + (half.slope + model_output) / 2 * half.length
