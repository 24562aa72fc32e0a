"""The schedulers by name, and the choice among them."""

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fastdeploy_diffusion import scheduler_names
from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.lazy import load
from fastdeploy_diffusion.schedulers.base import Scheduler
from fastdeploy_diffusion.shown import show

SCHEDULERS: Mapping[str, type[Scheduler[Any]]] = MappingProxyType(
    {name: load(path) for name, path in scheduler_names.SCHEDULERS.items()}
)
# Classes of diffusers not implemented here, whose files describe the same kind of model.
COMPATIBLE_CLASSES = frozenset(
    {
        "DEISMultistepScheduler",
        "DPMSolverSDEScheduler",
        "DPMSolverSinglestepScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "LMSDiscreteScheduler",
        "UniPCMultistepScheduler",
    }
)


def find_scheduler_class(class_name: object, name: str | None = None) -> type[Scheduler[Any]]:
    """Find the scheduler that the caller names, or else the one that the file names.

    Args:
        class_name: ``_class_name`` of ``scheduler_config.json``, None if it has none.
        name: Key of ``SCHEDULERS``.

    Raises:
        ConfigError: A name is unknown, or the named scheduler does not fit the file's model.
    """
    by_class = {each.diffusers_name: each for each in SCHEDULERS.values()}
    if name is not None:
        if name not in SCHEDULERS:
            raise _unknown_name("scheduler", name, list(SCHEDULERS))
        if class_name is None or str(class_name) in {*by_class, *COMPATIBLE_CLASSES}:
            return SCHEDULERS[name]
        raise ConfigError(
            f"scheduler {name!r} cannot sample a model whose scheduler_config.json says "
            f"_class_name={show(class_name)}",
            allowed=", ".join(sorted({*by_class, *COMPATIBLE_CLASSES})),
            fix="leave the scheduler to the checkpoint",
        )
    if str(class_name) in COMPATIBLE_CLASSES:
        raise ConfigError(
            f"_class_name={class_name!r} in scheduler_config.json is not implemented",
            allowed=", ".join(by_class),
            fix="choose another scheduler for this model, for example 'dpm-solver'",
        )
    if not isinstance(class_name, str) or class_name not in by_class:
        raise _unknown_name("_class_name in scheduler_config.json", class_name, list(by_class))
    return by_class[class_name]


def _unknown_name(what: str, given: object, allowed: list[str]) -> ConfigError:
    near = difflib.get_close_matches(str(given)[:80], allowed, n=1, cutoff=0.5)
    return ConfigError(
        f"unknown {what}: {show(given)}",
        allowed=", ".join(allowed),
        fix=f"did you mean {near[0]!r}?" if near else "choose one of these",
    )
