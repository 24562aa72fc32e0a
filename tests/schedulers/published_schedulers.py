"""Schedulers as published checkpoints configure them, and all that a caller can switch to."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reference_trajectory import SEEDS

from fastdeploy_diffusion.schedulers import SCHEDULERS, Scheduler, create_scheduler
from fastdeploy_diffusion.schedulers.create_flow import create_flow_scheduler

# As published with Stable Diffusion 1.5 and XL.
SD15 = json.loads("""{
  "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0",
  "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
  "num_train_timesteps": 1000, "set_alpha_to_one": false, "skip_prk_steps": true,
  "steps_offset": 1, "trained_betas": null, "clip_sample": false
}""")
SDXL = json.loads("""{
  "_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0",
  "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
  "clip_sample": false, "interpolation_type": "linear", "num_train_timesteps": 1000,
  "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": false,
  "skip_prk_steps": true, "steps_offset": 1, "timestep_spacing": "leading",
  "trained_betas": null, "use_karras_sigmas": false
}""")
# As published with Stable Diffusion 2.1, SDXL Turbo and the LCM of Dreamshaper.
SD21 = {**SD15, "_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}
TURBO = {
    **SDXL,
    "_class_name": "EulerAncestralDiscreteScheduler",
    "timestep_spacing": "trailing",
}
LCM = {**SD15, "_class_name": "LCMScheduler", "original_inference_steps": 50}
# As published with Playground 2.5, but for its class, which is another solver for the same models.
EDM = {
    "_class_name": "EDMEulerScheduler",
    "sigma_max": 80.0,
    "sigma_min": 0.002,
    "sigma_data": 0.5,
    "prediction_type": "v_prediction",
}
CHECKPOINTS = {
    "sd15": SD15,
    "sd15, with Runge-Kutta": {**SD15, "skip_prk_steps": False},
    "sd21": SD21,
    "sdxl": SDXL,
    "sdxl turbo": TURBO,
    "lcm": LCM,
}
FLUX = {"_class_name": "FlowMatchEulerDiscreteScheduler", "base_shift": 0.5, "max_shift": 1.15}
FLUX_HEUN = {"_class_name": "FlowMatchHeunDiscreteScheduler", "shift": 3.0}
FLUX_SCHNELL = {**FLUX, "shift": 1.0, "use_dynamic_shifting": False}
FLUX_DEV = {**FLUX, "shift": 3.0, "use_dynamic_shifting": True}


@dataclass(frozen=True)
class Published:
    """A scheduler and the way in which its pipeline plans a request.

    Args:
        make: Makes a fresh one.
        plan: What ``set_timesteps`` is given beside the number of steps.
        other_plan: The same of a request for another picture.
    """

    make: Callable[[], Scheduler[Any]]
    plan: Mapping[str, Any] = field(default_factory=dict)
    other_plan: Mapping[str, Any] = field(default_factory=dict)


def _switch(config: Mapping[str, Any], name: str | None) -> Published:
    return Published(lambda: create_scheduler(config, name, seeds=SEEDS))


PUBLISHED = {
    **{name: _switch(config, None) for name, config in CHECKPOINTS.items()},
    **{f"sd15: {name}": _switch(SD15, name) for name in SCHEDULERS if name != "edm-euler"},
    "edm": _switch(EDM, None),
    "tcd with noise": Published(lambda: create_scheduler(LCM, "tcd", eta=0.3)),
    "ddim with noise": Published(lambda: create_scheduler(SD15, "ddim", eta=0.5)),
    "flux schnell": Published(
        lambda: create_flow_scheduler(FLUX_SCHNELL), other_plan={"sigmas": [1.0, 0.7, 0.2, 0.1]}
    ),
    "flux heun": Published(lambda: create_flow_scheduler(FLUX_HEUN)),
    "flux dev": Published(
        lambda: create_flow_scheduler(FLUX_DEV), {"image_tokens": 1024}, {"image_tokens": 4096}
    ),
    "flux with noise": Published(
        lambda: create_flow_scheduler({**FLUX_SCHNELL, "stochastic_sampling": True})
    ),
}
