"""PNDM: pseudo linear multistep, optionally warmed up by pseudo Runge-Kutta steps."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.base import DrawNoise
from fastdeploy_diffusion.schedulers.config import SchedulerConfig
from fastdeploy_diffusion.schedulers.predictions import predict_noise
from fastdeploy_diffusion.schedulers.timesteps import space_timesteps
from fastdeploy_diffusion.schedulers.variance_preserving import VariancePreservingScheduler

# Runge-Kutta steps that fill the history; each calls the denoiser four times.
WARM_UP_STEPS = 3
RUNGE_KUTTA_WEIGHTS = (1 / 6, 1 / 3, 1 / 3, 1 / 6)
# Adams-Bashforth, newest first, by length of the history.
MULTISTEP_WEIGHTS = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


@dataclass(frozen=True, kw_only=True)
class PNDMConfig(SchedulerConfig):
    """Options of PNDM.

    Attributes:
        skip_prk_steps: Start without Runge-Kutta steps, as Stable Diffusion does.
        set_alpha_to_one: Step to the clean sample at the end, rather than to timestep 0.
    """

    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    skip_prk_steps: bool = False
    set_alpha_to_one: bool = False


class PNDMScheduler(VariancePreservingScheduler[PNDMConfig]):
    """Pseudo numerical methods for diffusion models, https://arxiv.org/abs/2202.09778."""

    diffusers_name = "PNDMScheduler"
    config_class = PNDMConfig

    def __init__(self, config: PNDMConfig) -> None:
        super().__init__(config, final_alpha_is_one=config.set_alpha_to_one)
        self._calls = 0
        self._history: list[FloatArray] = []  # newest first
        self._start: FloatArray = np.empty(0)  # latents that a step of several calls began with
        self._slope: FloatArray = np.empty(0)  # weighted sum over one Runge-Kutta step

    def set_begin_index(self, index: int) -> None:
        """Leave out the first timesteps of a plan, as image-to-image does.

        Raises:
            RequestError: No timestep would be left, or Runge-Kutta steps would be left out.
        """
        if index and not self.config.skip_prk_steps:
            raise RequestError(
                f"a request with Runge-Kutta steps cannot begin at index {index}",
                allowed="0: the whole plan",
                fix="set skip_prk_steps to true in scheduler_config.json, or use another scheduler",
            )
        super().set_begin_index(index)

    def _plan(self, steps: int) -> TimestepArray:
        spaced = space_timesteps(self.config, steps)
        self._calls, self._history = 0, []
        if self.config.skip_prk_steps:
            # The second timestep is visited twice: the first step is taken, then corrected.
            return np.concatenate([spaced[:2], spaced[1:2], spaced[2:]])
        if steps <= WARM_UP_STEPS:
            raise self.refuse_steps(steps, f"more than {WARM_UP_STEPS} (skip_prk_steps is false)")
        middle = self.config.num_train_timesteps // steps // 2
        warm_up = [
            time
            for start, end in pairwise(spaced[: WARM_UP_STEPS + 1])
            for time in (start, end + middle, end + middle, end)
        ]
        return np.concatenate([np.array(warm_up, dtype=np.int64), spaced[WARM_UP_STEPS:]])

    def _step(
        self, position: int, model_output: FloatArray, latents: FloatArray, noise: DrawNoise
    ) -> FloatArray:
        warming_up = not self.config.skip_prk_steps and self._calls < 4 * WARM_UP_STEPS
        advance = self._step_runge_kutta if warming_up else self._step_multistep
        result = advance(position, model_output, latents)
        self._calls += 1
        return result

    def _step_runge_kutta(
        self, position: int, model_output: FloatArray, latents: FloatArray
    ) -> FloatArray:
        """Take one of the four calls of a step of equation 12; the paper's "pseudo Runge-Kutta"."""
        timestep = int(self.planned_timesteps[position])
        stage = self._calls % 4
        weighted = RUNGE_KUTTA_WEIGHTS[stage] * model_output
        if stage == 0:
            self._history.insert(0, model_output)
            self._start, self._slope = latents, weighted
        else:
            self._slope = self._slope + weighted
        middle = self.config.num_train_timesteps // self.num_inference_steps // 2
        target = timestep if stage % 2 else timestep - middle
        start = int(self.planned_timesteps[position - stage])
        slope = self._slope if stage == 3 else model_output
        return self._transfer(self._start, start, target, slope)

    def _step_multistep(
        self, position: int, model_output: FloatArray, latents: FloatArray
    ) -> FloatArray:
        """Take a linear multistep step, as far back as the history goes."""
        timestep = int(self.planned_timesteps[position])
        stride = self.config.num_train_timesteps // self.num_inference_steps
        if self._calls == 1:
            # Correct the first step with the slope at its end.
            average = (model_output + self._history[0]) / 2
            return self._transfer(self._start, timestep + stride, timestep, average)
        if self._calls == 0:
            self._start = latents
        self._history = [model_output, *self._history[:3]]
        weights = MULTISTEP_WEIGHTS[len(self._history)]
        slope: FloatArray = weights[0] * model_output
        for weight, output in zip(weights[1:], self._history[1:], strict=True):
            slope = slope + weight * output
        return self._transfer(latents, timestep, timestep - stride, slope)

    def _transfer(
        self, latents: FloatArray, timestep: int, target: int, slope: FloatArray
    ) -> FloatArray:
        """Move latents between two timesteps along a predicted noise, by equation 11."""
        power, power_next = self.signal_power(timestep), self.signal_power(target)
        noise = predict_noise(
            self.config.prediction_type, slope, latents, math.sqrt(power), math.sqrt(1 - power)
        )
        scale = math.sqrt(power_next / power)
        divisor = power * math.sqrt(1 - power_next) + math.sqrt(power * (1 - power) * power_next)
        return scale * latents - (power_next - power) / divisor * noise
