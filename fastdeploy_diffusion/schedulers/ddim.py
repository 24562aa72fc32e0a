"""DDIM: the deterministic (or, with eta, partly random) shortcut through a trained chain."""

import math
from dataclasses import dataclass

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.base import DrawNoise
from fastdeploy_diffusion.schedulers.clipping import ClippingConfig, clip_sample
from fastdeploy_diffusion.schedulers.predictions import predict_clean, predict_noise
from fastdeploy_diffusion.schedulers.timesteps import space_timesteps
from fastdeploy_diffusion.schedulers.variance_preserving import VariancePreservingScheduler


@dataclass(frozen=True, kw_only=True)
class DDIMConfig(ClippingConfig):
    """Options of DDIM.

    Attributes:
        set_alpha_to_one: Step to the clean sample at the end, rather than to timestep 0.
    """

    set_alpha_to_one: bool = True


class DDIMScheduler(VariancePreservingScheduler[DDIMConfig]):
    """Denoising diffusion implicit models, https://arxiv.org/abs/2010.02502.

    Args:
        eta: Share of DDPM's noise, from 0 (deterministic) to 1; η of equation 16.

    Raises:
        RequestError: ``eta`` is out of range.
    """

    diffusers_name = "DDIMScheduler"
    config_class = DDIMConfig

    def __init__(self, config: DDIMConfig, *, eta: float = 0.0) -> None:
        if not 0 <= eta <= 1:
            raise RequestError(f"eta={eta!r} is not possible", allowed="0 to 1", fix="change eta")
        super().__init__(
            config,
            zero_terminal_snr=config.rescale_betas_zero_snr,
            final_alpha_is_one=config.set_alpha_to_one,
        )
        self.eta = eta

    def _plan(self, steps: int) -> TimestepArray:
        return space_timesteps(self.config, steps)

    def _step(
        self, position: int, model_output: FloatArray, latents: FloatArray, noise: DrawNoise
    ) -> FloatArray:
        config, timestep = self.config, int(self.planned_timesteps[position])
        stride = config.num_train_timesteps // self.num_inference_steps
        power = self.signal_power(timestep)
        power_next = self.signal_power(timestep - stride)
        alpha, sigma = math.sqrt(power), math.sqrt(1 - power)

        clean = predict_clean(config.prediction_type, model_output, latents, alpha, sigma)
        clean = clip_sample(config, clean)
        # Of the unclipped prediction, as in the paper: clipping moves only the target.
        direction = predict_noise(config.prediction_type, model_output, latents, alpha, sigma)
        # Equation 16.
        variance = (1 - power_next) / (1 - power) * (1 - power / power_next)
        added = self.eta * math.sqrt(variance)
        # Equation 12.
        latents = math.sqrt(power_next) * clean + math.sqrt(1 - power_next - added**2) * direction
        return latents + added * noise() if self.eta > 0 else latents
