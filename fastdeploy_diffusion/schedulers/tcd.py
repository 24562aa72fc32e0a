"""TCD: few-step sampling of a trajectory consistency model, with as much noise as asked for."""

import math

import numpy as np

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.schedulers.arrays import FloatArray
from fastdeploy_diffusion.schedulers.base import DrawNoise
from fastdeploy_diffusion.schedulers.lcm import LCMConfig, LCMScheduler
from fastdeploy_diffusion.schedulers.predictions import predict_clean, predict_noise


class TCDScheduler(LCMScheduler):
    """Strategic stochastic sampling, algorithm 4 of https://arxiv.org/abs/2402.19159.

    Its options are those of LCM; as in diffusers, those that clip have no effect.

    Args:
        eta: Share of noise, from 0 (deterministic) to 1; γ of the paper.

    Raises:
        RequestError: ``eta`` is out of range.
    """

    diffusers_name = "TCDScheduler"

    def __init__(self, config: LCMConfig, *, eta: float = 0.0) -> None:
        if not 0 <= eta <= 1:
            raise RequestError(f"eta={eta!r} is not possible", allowed="0 to 1", fix="change eta")
        super().__init__(config)
        self.eta = eta

    def _step(
        self, position: int, model_output: FloatArray, latents: FloatArray, noise: DrawNoise
    ) -> FloatArray:
        kind, timestep = self.config.prediction_type, int(self.planned_timesteps[position])
        following = self.planned_timesteps[position + 1 :]
        next_timestep = int(following[0]) if len(following) else 0
        # In single precision, as torch multiplies: a product just below a number is rounded to it.
        inner = int(np.float32(1 - self.eta) * np.float32(next_timestep))
        power, inner_power = self.signal_power(timestep), self.signal_power(inner)
        alpha, sigma = math.sqrt(power), math.sqrt(1 - power)
        clean = predict_clean(kind, model_output, latents, alpha, sigma)
        direction = predict_noise(kind, model_output, latents, alpha, sigma)
        result = math.sqrt(inner_power) * clean + math.sqrt(1 - inner_power) * direction
        if self.eta == 0 or len(following) == 0:
            return result
        kept = self.signal_power(next_timestep) / inner_power
        return math.sqrt(kept) * result + math.sqrt(1 - kept) * noise()
