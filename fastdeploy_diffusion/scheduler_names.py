"""Schedulers by name, and samplers of other tools: the equal one, or the nearest."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

_PATHS = {
    "ddim": "ddim:DDIMScheduler",
    "ddpm": "ddpm:DDPMScheduler",
    "pndm": "pndm:PNDMScheduler",
    "euler": "euler:EulerScheduler",
    "euler-ancestral": "euler_ancestral:EulerAncestralScheduler",
    "heun": "heun:HeunScheduler",
    "lms": "lms:LMSScheduler",
    "kdpm2": "kdpm2:KDPM2Scheduler",
    "kdpm2-ancestral": "kdpm2_ancestral:KDPM2AncestralScheduler",
    "dpm-solver": "dpm_solver:DPMSolverScheduler",
    "dpm-solver-singlestep": "dpm_solver_singlestep:DPMSolverSinglestepScheduler",
    "dpm-solver-sde": "dpm_solver_sde:DPMSolverSDEScheduler",
    "deis": "deis:DEISScheduler",
    "unipc": "unipc:UniPCScheduler",
    "lcm": "lcm:LCMScheduler",
    "tcd": "tcd:TCDScheduler",
    "edm-euler": "edm_euler:EDMEulerScheduler",
}
SCHEDULERS: Mapping[str, str] = MappingProxyType(
    {name: f"fastdeploy_diffusion.schedulers.{path}" for name, path in _PATHS.items()}
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


_SPACINGS = {
    "Karras": "use_karras_sigmas",
    "Exponential": "use_exponential_sigmas",
    "Beta": "use_beta_sigmas",
}
# Samplers that are a scheduler with just these options; of A1111's, "2S" is the one without "a".
_SOLVERS = {
    "DPM++ 2M": ("dpm-solver", "dpmsolver++", 2, "midpoint"),
    "DPM++ 2M SDE": ("dpm-solver", "sde-dpmsolver++", 2, "midpoint"),
    "DPM++ 2M SDE Heun": ("dpm-solver", "sde-dpmsolver++", 2, "heun"),
    "DPM++ 3M SDE": ("dpm-solver", "sde-dpmsolver++", 3, "midpoint"),
    "DPM++ 2S": ("dpm-solver-singlestep", "dpmsolver++", 2, "midpoint"),
}
# Samplers that are a scheduler with the options of the file, but for the spacing of a name.
_SPACED = {
    "Euler": "euler",
    "Heun": "heun",
    "LMS": "lms",
    "DPM2": "kdpm2",
    "DPM2 a": "kdpm2-ancestral",
    "DEIS": "deis",
    "UniPC": "unipc",
}


def _list_samplers() -> dict[str, SchedulerChoice]:
    unspaced: dict[str, Any] = dict.fromkeys(_SPACINGS.values(), False)
    samplers = {
        name: SchedulerChoice(
            scheduler,
            {"algorithm_type": algorithm, "solver_order": order, "solver_type": kind, **unspaced},
        )
        for name, (scheduler, algorithm, order, kind) in _SOLVERS.items()
    }
    samplers["DPM++ SDE"] = SchedulerChoice("dpm-solver-sde", unspaced)
    spaced = {**{name: SchedulerChoice(key, unspaced) for name, key in _SPACED.items()}, **samplers}
    for name, choice in spaced.items():
        for spacing, option in _SPACINGS.items():
            samplers[f"{name} {spacing}"] = replace(
                choice, options={**choice.options, option: True}
            )
    samplers["PLMS"] = SchedulerChoice("pndm", {"skip_prk_steps": True})
    return samplers


SAMPLERS: Mapping[str, SchedulerChoice] = MappingProxyType(_list_samplers())
"""Samplers of the WebUI of AUTOMATIC1111 that are a scheduler with just these options."""

ALLOWED = (
    f"{', '.join((*SCHEDULERS, *_SOLVERS, 'DPM++ SDE', 'PLMS'))}; or one of "
    f"{', '.join((*_SPACED, *_SOLVERS, 'DPM++ SDE'))} with {', '.join(_SPACINGS)} behind it"
)
"""What a scheduler may be called, for messages."""

_CLASSES = {
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "ddpm",
    "DEISMultistepScheduler": "deis",
    "DPMSolverMultistepScheduler": "dpm-solver",
    "DPMSolverSDEScheduler": "dpm-solver-sde",
    "DPMSolverSinglestepScheduler": "dpm-solver-singlestep",
    "EDMEulerScheduler": "edm-euler",
    "EulerAncestralDiscreteScheduler": "euler-ancestral",
    "EulerDiscreteScheduler": "euler",
    "HeunDiscreteScheduler": "heun",
    "KDPM2AncestralDiscreteScheduler": "kdpm2-ancestral",
    "KDPM2DiscreteScheduler": "kdpm2",
    "LCMScheduler": "lcm",
    "LMSDiscreteScheduler": "lms",
    "PNDMScheduler": "pndm",
    "TCDScheduler": "tcd",
    "UniPCMultistepScheduler": "unipc",
}
_ALIASES = {
    "Euler a": "euler-ancestral",
    "DPM2": "kdpm2",
    "DPM2 a": "kdpm2-ancestral",
    "dpm_2_ancestral": "kdpm2-ancestral",
    "k_dpm_2_a": "kdpm2-ancestral",
    "DPM-Solver multistep": "dpm-solver",
    "uni_pc_bh2": "unipc",
}
# Not implemented, with the nearest that is: of the same order and kind where there is one.
_NEAREST = {
    "DPM fast": "dpm-solver",
    "DPM adaptive": "dpm-solver",
    "DPM++ 2S a": "DPM++ 2S",
    "dpmpp_2s_ancestral": "DPM++ 2S",
    "Euler a": "euler-ancestral",
    "Restart": "heun",
    "IPNDM": "lms",
    "IPNDMScheduler": "lms",
}


_PREFIXED = ("kdpmpp", "keuler", "kheun", "klms")


def _fold(name: str) -> str:
    """Normalise spellings: of tools that write ``dpmpp_2m``, ``k_dpmpp_2m``, ``DPM++ 2M``."""
    folded = name.lower().replace("dpm++", "dpmpp")
    folded = "".join(letter for letter in folded if letter not in " -_")
    return folded.removeprefix("k") if folded.startswith(_PREFIXED) else folded


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
    for spacing in _SPACINGS:
        folded = folded.removesuffix(spacing.lower())
    return _MISSING.get(folded)


def choose_scheduler(name: str) -> SchedulerChoice:
    """Look up the scheduler and options of a name."""
    return SAMPLERS.get(name) or SchedulerChoice(name)
