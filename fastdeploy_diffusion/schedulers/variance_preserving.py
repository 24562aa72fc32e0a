"""The base of DDPM, DDIM, PNDM and LCM: latents of unit variance, a table of signal power."""

import math

from fastdeploy_diffusion.schedulers.arrays import FloatArray
from fastdeploy_diffusion.schedulers.base import Scheduler
from fastdeploy_diffusion.schedulers.betas import cumulate_alphas
from fastdeploy_diffusion.schedulers.config import ConfigT


class VariancePreservingScheduler(Scheduler[ConfigT]):
    """A scheduler whose latents are ``sqrt(a_t) * clean + sqrt(1 - a_t) * noise``.

    Args:
        zero_terminal_snr: Rescale the schedule so that the last timestep is pure noise.
        final_alpha_is_one: Step to the clean sample at the end, rather than to timestep 0.

    Attributes:
        alphas_cumprod: ``a_t``, ``(num_train_timesteps,)`` float32.
    """

    def __init__(
        self, config: ConfigT, *, zero_terminal_snr: bool = False, final_alpha_is_one: bool = True
    ) -> None:
        super().__init__(config)
        self.alphas_cumprod = cumulate_alphas(config, zero_terminal_snr=zero_terminal_snr)
        self._final_alpha = 1.0 if final_alpha_is_one else float(self.alphas_cumprod[0])

    def add_noise(self, original: FloatArray, noise: FloatArray, timestep: float) -> FloatArray:
        """Noise clean latents up to a training timestep."""
        power = self.signal_power(int(timestep))
        return math.sqrt(power) * original + math.sqrt(1 - power) * noise

    def signal_power(self, timestep: int) -> float:
        """Look up ``a_t``; before timestep 0, that of the final step."""
        if timestep < 0:
            return self._final_alpha
        # A Python float, so that coefficients are double and arrays stay float32 in numpy 1 and 2.
        return float(self.alphas_cumprod[timestep])
