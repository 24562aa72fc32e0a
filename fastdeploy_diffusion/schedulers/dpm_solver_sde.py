"""DPM++ SDE: a second-order step of the diffusion SDE by way of its middle, along one noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.base import DrawNoise
from fastdeploy_diffusion.schedulers.brownian_tree import BrownianTree
from fastdeploy_diffusion.schedulers.config import Beta, TimestepSpacing
from fastdeploy_diffusion.schedulers.heun import repeat_after_first
from fastdeploy_diffusion.schedulers.noise_levels import NoiseLevelsConfig
from fastdeploy_diffusion.schedulers.predictions import predict_clean_from_sigma
from fastdeploy_diffusion.schedulers.sigma import split_noise
from fastdeploy_diffusion.schedulers.spaced_sigma import SpacedSigmaScheduler
from fastdeploy_diffusion.schedulers.timesteps import sigmas_to_timesteps


@dataclass(frozen=True, kw_only=True)
class DPMSolverSDEConfig(NoiseLevelsConfig):
    """Options of DPM++ SDE.

    Attributes:
        noise_sampler_seed: Seed of the noise, for all requests and all pictures of a batch
            together; by default each picture has its own.
    """

    beta_start: Beta = 0.00085
    beta_end: Beta = 0.012
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    timestep_spacing: TimestepSpacing = "linspace"
    noise_sampler_seed: Annotated[int, Field(ge=0, lt=2**64)] | None = None


class DPMSolverSDEScheduler(SpacedSigmaScheduler[DPMSolverSDEConfig]):
    """``sample_dpmpp_sde`` of https://github.com/crowsonkb/k-diffusion.

    Args:
        seeds: Of the noise, one for each picture; the scheduler draws nothing from its caller.
    """

    diffusers_name = "DPMSolverSDEScheduler"
    config_class = DPMSolverSDEConfig
    order = 2

    def __init__(self, config: DPMSolverSDEConfig, *, seeds: Sequence[int] = ()) -> None:
        super().__init__(config)
        self._seeds = seeds
        self._trees: list[BrownianTree] = []
        self._start: FloatArray | None = None  # latents of a step that is at its middle

    def _plan(self, steps: int) -> TimestepArray:
        timesteps, sigmas = self._space(steps, np.float64)
        self.sigmas = np.append(repeat_after_first(sigmas), 0.0).astype(np.float32)
        self._trees, self._start = [], None
        planned = repeat_after_first(timesteps)
        # The last step, to no noise, has no middle.
        middles = np.exp((np.log(sigmas[:-1]) + np.log(sigmas[1:])) / 2)
        planned[1::2] = sigmas_to_timesteps(middles, self.train_sigmas)
        return planned.astype(np.float32)

    def _input_sigma(self, position: int) -> float:
        if position % 2 == 0:
            return self._sigma(position)
        return _find_middle(self._sigma(position - 1), self._sigma(position))

    def _step(
        self, position: int, model_output: FloatArray, latents: FloatArray, noise: DrawNoise
    ) -> FloatArray:
        first = position - position % 2
        sigma, sigma_next = self._sigma(first), self._sigma(first + 1)
        current, kind = self._input_sigma(position), self.config.prediction_type
        clean = predict_clean_from_sigma(kind, model_output, latents, current)
        if sigma_next == 0:
            return clean
        if self._start is None:
            start, end = latents, _find_middle(sigma, sigma_next)
            self._start = latents
        else:
            start, end = self._start, sigma_next
            self._start = None
        down, up = split_noise(sigma, end)
        ratio = down / sigma
        fresh = up * self._draw(sigma, end, latents.shape)
        return np.asarray(ratio * start + (1 - ratio) * clean + fresh)

    def _draw(self, sigma: float, sigma_next: float, shape: tuple[int, ...]) -> FloatArray:
        """Draw the noise between two levels: the standardised change of a path in sigma."""
        if not self._trees:
            self._trees = self._plant(shape)
        start, end = _restore(_time(sigma_next)), _restore(_time(sigma))
        change = np.stack([tree.change(start, end) for tree in self._trees]).reshape(shape)
        return np.asarray(-change / np.float32(math.sqrt(end - start)))

    def _plant(self, shape: tuple[int, ...]) -> list[BrownianTree]:
        levels = self.sigmas[self.sigmas > 0]
        ends = float(levels.min()), float(levels.max())
        if self.config.noise_sampler_seed is not None:
            return [BrownianTree(*ends, shape, self.config.noise_sampler_seed)]
        if len(self._seeds) != shape[0]:
            raise RequestError(
                f"the noise of {shape[0]} pictures has {len(self._seeds)} seeds",
                allowed="one for each",
                fix="create_scheduler(…, seeds=…), or noise_sampler_seed in scheduler_config.json",
            )
        return [BrownianTree(*ends, shape[1:], seed % 2**64) for seed in self._seeds]


# A path moves by a thousandth in the time by which single precision is off at the noisiest level:
# its times are those of diffusers only if they are rounded as often as there, to float32.


def _time(sigma: float) -> float:
    return float(np.float32(-math.log(sigma)))


def _restore(time: float) -> float:
    return float(np.float32(math.exp(-time)))


def _find_middle(sigma: float, sigma_next: float) -> float:
    """Find the level in the middle of the logarithms."""
    start, end = _time(sigma), _time(sigma_next)
    return _restore(float(np.float32(start + float(np.float32(end - start)) / 2)))
