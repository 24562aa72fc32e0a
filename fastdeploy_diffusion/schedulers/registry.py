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
# EDM preconditions its denoiser differently: no other scheduler can take its place.
_ALONE = "edm-euler"


def find_scheduler_class(class_name: object, name: str | None = None) -> type[Scheduler[Any]]:
    """Find the scheduler that the caller names, or else the one that the file names.

    Args:
        class_name: ``_class_name`` of ``scheduler_config.json``, None if it has none.
        name: Key of ``SCHEDULERS``.

    Raises:
        ConfigError: A name is unknown, or the named scheduler does not fit the file's model.
    """
    by_class = {each.diffusers_name: key for key, each in SCHEDULERS.items()}
    if name is not None and name not in SCHEDULERS:
        raise _unknown_name("scheduler", name, list(SCHEDULERS))
    if name is not None and class_name is None:
        return SCHEDULERS[name]
    own = by_class.get(class_name) if isinstance(class_name, str) else None
    if name is not None and (own is None or (own == _ALONE) != (name == _ALONE)):
        fitting = (key for key in SCHEDULERS if (key == _ALONE) == (name == _ALONE))
        raise ConfigError(
            f"scheduler {name!r} cannot sample a model whose scheduler_config.json says "
            f"_class_name={show(class_name)}",
            allowed=", ".join(sorted(SCHEDULERS[key].diffusers_name for key in fitting)),
            fix="leave the scheduler to the checkpoint",
        )
    if own is None:
        raise _unknown_name("_class_name in scheduler_config.json", class_name, list(by_class))
    return SCHEDULERS[name or own]


def _unknown_name(what: str, given: object, allowed: list[str]) -> ConfigError:
    near = difflib.get_close_matches(str(given)[:80], allowed, n=1, cutoff=0.5)
    return ConfigError(
        f"unknown {what}: {show(given)}",
        allowed=", ".join(allowed),
        fix=f"did you mean {near[0]!r}?" if near else "choose one of these",
    )
