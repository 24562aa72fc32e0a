"""LCM: few-step sampling of a latent consistency model."""

import math
from dataclasses import dataclass

import numpy as np

from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.base import DrawNoise
from fastdeploy_diffusion.schedulers.clipping import ClippingConfig, clip_sample
from fastdeploy_diffusion.schedulers.config import (
    Beta,
    BetaSchedule,
    Magnitude,
    TrainingLength,
)
from fastdeploy_diffusion.schedulers.predictions import predict_clean
from fastdeploy_diffusion.schedulers.variance_preserving import VariancePreservingScheduler

# Standard deviation of the data, as in the paper's boundary condition.
SIGMA_DATA = 0.5


@dataclass(frozen=True, kw_only=True)
class LCMConfig(ClippingConfig):
    """Options of LCM; its timesteps follow from distillation, not from the spacing and the offset.

    Attributes:
        original_inference_steps: Number of timesteps that the model was distilled on.
        timestep_scaling: Factor of the timestep in the boundary condition.
        set_alpha_to_one: Kept for files that have it; no step of LCM goes below timestep 0.
    """

    beta_start: Beta = 0.00085
    beta_end: Beta = 0.012
    beta_schedule: BetaSchedule = "scaled_linear"
    clip_sample: bool = False
    original_inference_steps: TrainingLength = 50
    timestep_scaling: Magnitude = 10.0
    set_alpha_to_one: bool = True


class LCMScheduler(VariancePreservingScheduler[LCMConfig]):
    """Multistep sampling of latent consistency models, algorithm 3 of https://arxiv.org/abs/2310.04378.

    Raises:
        ConfigError: The model was distilled on more timesteps than it was trained on.
    """

    diffusers_name = "LCMScheduler"
    config_class = LCMConfig
    takes_timesteps = True

    def __init__(self, config: LCMConfig) -> None:
        if config.original_inference_steps > config.num_train_timesteps:
            raise ConfigError(
                f"original_inference_steps={config.original_inference_steps} is too large",
                allowed=f"at most num_train_timesteps={config.num_train_timesteps}",
                fix="correct original_inference_steps in scheduler_config.json",
            )
        super().__init__(config, zero_terminal_snr=config.rescale_betas_zero_snr)

    def _plan(self, steps: int) -> TimestepArray:
        distilled = self.config.original_inference_steps
        if steps > distilled:
            raise self.refuse_steps(steps, f"at most original_inference_steps={distilled}")
        stride = self.config.num_train_timesteps // distilled
        descending = np.arange(distilled, 0, -1, dtype=np.int64) * stride - 1
        chosen = np.linspace(0, distilled, steps, endpoint=False).astype(np.int64)
        return descending[chosen]

    def _plan_timesteps(self, timesteps: TimestepArray) -> TimestepArray:
        return timesteps.astype(np.int64)

    def _step(
        self, position: int, model_output: FloatArray, latents: FloatArray, noise: DrawNoise
    ) -> FloatArray:
        config, timestep = self.config, int(self.planned_timesteps[position])
        power = self.signal_power(timestep)
        clean = predict_clean(
            config.prediction_type, model_output, latents, math.sqrt(power), math.sqrt(1 - power)
        )
        clean = clip_sample(config, clean)

        scaled = timestep * config.timestep_scaling
        skip = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2)
        out = scaled / math.sqrt(scaled**2 + SIGMA_DATA**2)
        denoised = out * clean + skip * latents

        following = self.planned_timesteps[position + 1 :]
        if len(following) == 0:
            return denoised
        power_next = self.signal_power(int(following[0]))
        return math.sqrt(power_next) * denoised + math.sqrt(1 - power_next) * noise()
