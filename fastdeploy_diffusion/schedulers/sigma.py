"""The base of all schedulers that walk down noise levels."""

import math

import numpy as np

from fastdeploy_diffusion.schedulers.arrays import FloatArray
from fastdeploy_diffusion.schedulers.base import Scheduler
from fastdeploy_diffusion.schedulers.betas import cumulate_alphas
from fastdeploy_diffusion.schedulers.config import ConfigT

# Signal power that stands for "none" at the last timestep: its sigma, 4096, is finite.
TINY_SIGNAL_POWER = 2.0**-24


class SigmaScheduler(Scheduler[ConfigT]):
    """A scheduler that walks down noise levels; its latents are ``clean + sigma * noise``.

    Args:
        zero_terminal_snr: Rescale the schedule so that the last timestep is (almost) pure noise.

    Attributes:
        train_sigmas: Noise level of each training timestep, ``(num_train_timesteps,)`` float32.
        sigmas: Noise levels of this request, one more than ``planned_timesteps``, float32.
    """

    def __init__(self, config: ConfigT, *, zero_terminal_snr: bool = False) -> None:
        super().__init__(config)
        alphas_cumprod = cumulate_alphas(config, zero_terminal_snr=zero_terminal_snr)
        if zero_terminal_snr:
            alphas_cumprod[-1] = TINY_SIGNAL_POWER
        self.train_sigmas = np.sqrt((1 - alphas_cumprod) / alphas_cumprod)
        self.sigmas: FloatArray = np.empty(0, dtype=np.float32)

    @property
    def init_noise_sigma(self) -> float:
        """The largest noise level, which for "leading" is added to latents of unit variance."""
        largest = float(self.sigmas[: len(self.planned_timesteps)].max())
        if self.config.timestep_spacing == "leading":
            return math.sqrt(largest**2 + 1)
        return largest

    def scale_model_input(self, latents: FloatArray, timestep: float) -> FloatArray:
        """Divide latents to unit variance."""
        sigma = self._input_sigma(self.due_index(timestep))
        return np.asarray(latents / math.sqrt(sigma**2 + 1))

    def add_noise(self, original: FloatArray, noise: FloatArray, timestep: float) -> FloatArray:
        """Noise clean latents to the level of one of this request's timesteps."""
        return np.asarray(original + self._sigma(self.index_of(timestep)) * noise)

    def _input_sigma(self, position: int) -> float:
        """Noise level of the latents that a denoiser sees at a position."""
        return self._sigma(position)

    def _sigma(self, position: int) -> float:
        # A Python float, so that coefficients are double and arrays stay float32 in numpy 1 and 2.
        return float(self.sigmas[position])


def split_noise(sigma: float, sigma_next: float) -> tuple[float, float]:
    """Split the noise after a step: the level to step down to, and that of fresh noise to add."""
    variance_up = sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2
    return math.sqrt(sigma_next**2 - variance_up), math.sqrt(variance_up)
