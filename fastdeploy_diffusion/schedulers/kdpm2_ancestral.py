"""KDPM2 ancestral: KDPM2 to less noise than wanted, then fresh noise."""

import math

from fastdeploy_diffusion.schedulers.kdpm2 import KDPM2Scheduler, Stage
from fastdeploy_diffusion.schedulers.sigma import split_noise


class KDPM2AncestralScheduler(KDPM2Scheduler):
    """``sample_dpm_2_ancestral`` of https://github.com/crowsonkb/k-diffusion."""

    diffusers_name = "KDPM2AncestralDiscreteScheduler"

    def _stage(self, sigma: float, sigma_next: float) -> Stage:
        end, fresh = split_noise(sigma, sigma_next)
        return Stage(sigma, math.sqrt(sigma * end), end, fresh)
