"""KDPM2: a second-order step by way of its middle, but for the last step."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.base import DrawNoise
from fastdeploy_diffusion.schedulers.config import Beta, TimestepSpacing
from fastdeploy_diffusion.schedulers.heun import repeat_after_first
from fastdeploy_diffusion.schedulers.noise_levels import NoiseLevelsConfig
from fastdeploy_diffusion.schedulers.predictions import predict_clean_from_sigma
from fastdeploy_diffusion.schedulers.spaced_sigma import SpacedSigmaScheduler
from fastdeploy_diffusion.schedulers.timesteps import sigmas_to_timesteps


@dataclass(frozen=True, kw_only=True)
class KDPM2Config(NoiseLevelsConfig):
    """Options of KDPM2."""

    beta_start: Beta = 0.00085
    beta_end: Beta = 0.012
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    timestep_spacing: TimestepSpacing = "linspace"


class Stage(NamedTuple):
    """The noise levels of one step.

    Args:
        start: Where it begins.
        middle: Where its slope is taken: in the middle of the logarithms.
        end: Where the slope leads.
        fresh: Level of the noise that is then added.
    """

    start: float
    middle: float
    end: float
    fresh: float


class KDPM2Scheduler(SpacedSigmaScheduler[KDPM2Config]):
    """``sample_dpm_2`` of https://github.com/crowsonkb/k-diffusion, without churn."""

    diffusers_name = "KDPM2DiscreteScheduler"
    config_class = KDPM2Config
    order = 2

    def __init__(self, config: KDPM2Config) -> None:
        super().__init__(config)
        self._stages: list[Stage] = []
        self._start: FloatArray | None = None  # latents of a step that is at its middle

    def _plan(self, steps: int) -> TimestepArray:
        timesteps, sigmas = self._space(steps)
        if self.config.use_karras_sigmas:
            timesteps = timesteps.round()
        levels = np.append(sigmas, 0.0).astype(np.float32)
        self.sigmas = repeat_after_first(levels)
        self._stages = [self._stage(*(float(each) for each in pair)) for pair in pairwise(levels)]
        self._start = None
        # The last step, to no noise, has no middle.
        middles = np.array([stage.middle for stage in self._stages[:-1]])
        planned = repeat_after_first(timesteps)
        planned[1::2] = sigmas_to_timesteps(middles, self.train_sigmas)
        return planned

    def _stage(self, sigma: float, sigma_next: float) -> Stage:
        return Stage(sigma, math.sqrt(sigma * sigma_next), sigma_next, 0.0)

    def _input_sigma(self, position: int) -> float:
        stage = self._stages[position // 2]
        return stage.middle if position % 2 else stage.start

    def _step(
        self, position: int, model_output: FloatArray, latents: FloatArray, noise: DrawNoise
    ) -> FloatArray:
        stage = self._stages[position // 2]
        sigma = self._input_sigma(position)
        clean = predict_clean_from_sigma(self.config.prediction_type, model_output, latents, sigma)
        slope = (latents - clean) / sigma
        if self._start is None:
            self._start = latents
            return latents + slope * (stage.middle - stage.start)
        start, self._start = self._start, None
        result = start + slope * (stage.end - stage.start)
        return result + stage.fresh * noise() if stage.fresh > 0 else result
