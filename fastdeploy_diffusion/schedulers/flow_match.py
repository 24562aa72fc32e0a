"""The base of schedulers of rectified flows."""

import numpy as np

from fastdeploy_diffusion.schedulers.arrays import FloatArray
from fastdeploy_diffusion.schedulers.base import Scheduler
from fastdeploy_diffusion.schedulers.config import ConfigT


class FlowMatchScheduler(Scheduler[ConfigT]):
    """A scheduler of a model that predicts a velocity.

    Latents are ``(1 - sigma) * clean + sigma * noise``, and the velocity is ``noise - clean``.

    Attributes:
        sigmas: Shares of noise of this request, one more than ``planned_timesteps``, float32.
    """

    def __init__(self, config: ConfigT) -> None:
        super().__init__(config)
        self.sigmas: FloatArray = np.empty(0, dtype=np.float32)

    def add_noise(self, original: FloatArray, noise: FloatArray, timestep: float) -> FloatArray:
        """Mix clean latents with noise, as ``scale_noise`` of diffusers does."""
        sigma = float(self.sigmas[self.index_of(timestep)])
        return np.asarray(sigma * noise + (1.0 - sigma) * original)
