"""Schedulers by name, and samplers of other tools: the equal one, or the nearest."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

SCHEDULERS: Mapping[str, str] = MappingProxyType(
    {
        "ddim": "fastdeploy_diffusion.schedulers.ddim:DDIMScheduler",
        "ddpm": "fastdeploy_diffusion.schedulers.ddpm:DDPMScheduler",
        "pndm": "fastdeploy_diffusion.schedulers.pndm:PNDMScheduler",
        "euler": "fastdeploy_diffusion.schedulers.euler:EulerScheduler",
        "euler-ancestral": (
            "fastdeploy_diffusion.schedulers.euler_ancestral:EulerAncestralScheduler"
        ),
        "heun": "fastdeploy_diffusion.schedulers.heun:HeunScheduler",
        "dpm-solver": "fastdeploy_diffusion.schedulers.dpm_solver:DPMSolverScheduler",
        "lcm": "fastdeploy_diffusion.schedulers.lcm:LCMScheduler",
    }
)
"""Import paths by name."""


@dataclass(frozen=True)
class SchedulerChoice:
    """A scheduler, and the options that a sampler's name stands for.

    Args:
        name: One of ``SCHEDULERS``.
        options: Override those in the checkpoint's ``scheduler_config.json``.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


def _multistep(algorithm: str, *, karras: bool) -> SchedulerChoice:
    options = {"algorithm_type": algorithm, "solver_order": 2, "solver_type": "midpoint"}
    return SchedulerChoice("dpm-solver", {**options, "use_karras_sigmas": karras})


SAMPLERS: Mapping[str, SchedulerChoice] = MappingProxyType(
    {
        "DPM++ 2M": _multistep("dpmsolver++", karras=False),
        "DPM++ 2M Karras": _multistep("dpmsolver++", karras=True),
        "DPM++ 2M SDE": _multistep("sde-dpmsolver++", karras=False),
        "DPM++ 2M SDE Karras": _multistep("sde-dpmsolver++", karras=True),
        "Euler Karras": SchedulerChoice("euler", {"use_karras_sigmas": True}),
        "Heun Karras": SchedulerChoice("heun", {"use_karras_sigmas": True}),
        "PLMS": SchedulerChoice("pndm", {"skip_prk_steps": True}),
    }
)
"""Samplers of the WebUI of AUTOMATIC1111 that are a scheduler with just these options."""

_CLASSES = {
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "ddpm",
    "DPMSolverMultistepScheduler": "dpm-solver",
    "EulerAncestralDiscreteScheduler": "euler-ancestral",
    "EulerDiscreteScheduler": "euler",
    "HeunDiscreteScheduler": "heun",
    "LCMScheduler": "lcm",
    "PNDMScheduler": "pndm",
}
_ALIASES = {"Euler a": "euler-ancestral", "DPM-Solver multistep": "dpm-solver"}
# Not implemented, with the nearest that is: of the same order and kind where there is one.
_NEAREST = {
    "UniPC": "dpm-solver",
    "UniPCMultistepScheduler": "dpm-solver",
    "DEIS": "dpm-solver",
    "DEISMultistepScheduler": "dpm-solver",
    "DPMSolverSinglestepScheduler": "dpm-solver",
    "DPMSolverSDEScheduler": "DPM++ 2M SDE",
    "KDPM2DiscreteScheduler": "heun",
    "KDPM2AncestralDiscreteScheduler": "euler-ancestral",
    "LMSDiscreteScheduler": "dpm-solver",
    "LMS": "dpm-solver",
    "DPM2": "heun",
    "DPM2 a": "euler-ancestral",
    "DPM fast": "dpm-solver",
    "DPM adaptive": "dpm-solver",
    "DPM++ 2S a": "euler-ancestral",
    "DPM++ SDE": "DPM++ 2M SDE",
    "DPM++ 2M SDE Heun": "DPM++ 2M SDE",
    "DPM++ 3M SDE": "DPM++ 2M SDE",
    "Euler a Karras": "euler-ancestral",
}


def _fold(name: str) -> str:
    """Normalise spellings: of tools that write ``dpmpp_2m``, ``k_dpmpp_2m``, ``DPM++ 2M``."""
    folded = name.lower().replace("dpm++", "dpmpp")
    folded = "".join(letter for letter in folded if letter not in " -_")
    return folded.removeprefix("k") if folded.startswith(("kdpmpp", "keuler", "kheun")) else folded


_KNOWN: Mapping[str, str] = MappingProxyType(
    {
        **{_fold(name): name for name in (*SCHEDULERS, *SAMPLERS)},
        **{_fold(alias): name for alias, name in (*_CLASSES.items(), *_ALIASES.items())},
    }
)
_MISSING = {_fold(name): nearest for name, nearest in _NEAREST.items()}


def find_sampler(name: str) -> str | None:
    """Find a sampler's name in ``SCHEDULERS`` or ``SAMPLERS``; ``None`` if it has none.

    Args:
        name: As this library, diffusers (its class), the WebUI or ComfyUI writes it.
    """
    return _KNOWN.get(_fold(name))


def find_nearest_sampler(name: str) -> str | None:
    """Find the nearest to a sampler that is not implemented; ``None`` for unknown names."""
    folded = _fold(name)
    return _MISSING.get(folded) or _MISSING.get(folded.removesuffix("karras"))


def choose_scheduler(name: str) -> SchedulerChoice:
    """Look up the scheduler and options of a name."""
    return SAMPLERS.get(name) or SchedulerChoice(name)
