"""The base of Euler, Heun, LMS, KDPM2 and DPM++ SDE: noise levels of fractional timesteps."""

from typing import TypeVar

import numpy as np
from numpy.typing import DTypeLike

from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.noise_levels import (
    NoiseLevelsConfig,
    find_spacing,
    space_noise_levels,
)
from fastdeploy_diffusion.schedulers.sigma import SigmaScheduler
from fastdeploy_diffusion.schedulers.timesteps import (
    sigmas_to_timesteps,
    space_fractional_timesteps,
    timesteps_to_sigmas,
)

SpacedConfigT = TypeVar("SpacedConfigT", bound=NoiseLevelsConfig)


class SpacedSigmaScheduler(SigmaScheduler[SpacedConfigT]):
    """A scheduler whose noise levels follow from timesteps, or from a spacing of their own."""

    def _space(self, steps: int, dtype: DTypeLike = np.float32) -> tuple[TimestepArray, FloatArray]:
        """Space a request; returns ``(steps,)`` timesteps, and as many noise levels in float64."""
        timesteps = space_fractional_timesteps(self.config, steps).astype(dtype)
        sigmas = timesteps_to_sigmas(timesteps, self.train_sigmas)
        if find_spacing(self.config) is not None:
            sigmas = space_noise_levels(self.config, sigmas, steps)
            timesteps = sigmas_to_timesteps(sigmas, self.train_sigmas).astype(dtype)
        return timesteps, sigmas
