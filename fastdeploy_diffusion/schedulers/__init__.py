"""Samplers of diffusion models in numpy, equal to those of diffusers.

A scheduler is created from a checkpoint's ``scheduler_config.json``; every request calls
``set_timesteps`` and then, for each of ``timesteps``, ``scale_model_input`` and ``step``.
"""

from fastdeploy_diffusion.schedulers.base import Scheduler
from fastdeploy_diffusion.schedulers.create import create_scheduler
from fastdeploy_diffusion.schedulers.registry import SCHEDULERS

__all__ = ["SCHEDULERS", "Scheduler", "create_scheduler"]
