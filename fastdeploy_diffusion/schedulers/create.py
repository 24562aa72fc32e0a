"""Create a scheduler from a checkpoint's scheduler_config.json."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from fastdeploy_diffusion.errors import ConfigError, RequestError
from fastdeploy_diffusion.scheduler_names import choose_scheduler
from fastdeploy_diffusion.schedulers.base import Scheduler
from fastdeploy_diffusion.schedulers.config import read_config, unknown_option
from fastdeploy_diffusion.schedulers.ddim import DDIMScheduler
from fastdeploy_diffusion.schedulers.dpm_solver_sde import DPMSolverSDEScheduler
from fastdeploy_diffusion.schedulers.registry import SCHEDULERS, find_scheduler_class
from fastdeploy_diffusion.schedulers.tcd import TCDScheduler
from fastdeploy_diffusion.shown import show

logger = logging.getLogger(__name__)


def create_scheduler(
    config: Mapping[str, Any],
    name: str | None = None,
    *,
    eta: float = 0.0,
    seeds: Sequence[int] = (),
) -> Scheduler[Any]:
    """Create the scheduler of a checkpoint.

    Args:
        config: Content of ``scheduler_config.json``.
        name: One of our names of samplers: use this algorithm instead of the file's, with the
            options of the file that it understands and that the name does not choose.
        eta: Share of noise in DDIM and TCD, from 0 to 1.
        seeds: One for each picture, for schedulers that draw noise by themselves: DPM++ SDE.

    Raises:
        ConfigError: The class, an option or a value is unknown or not implemented.
        RequestError: ``eta`` is out of range, or not 0 and the scheduler is another.
    """
    options = _read_options(config)
    if name is not None:
        choice = choose_scheduler(name)
        name, options = choice.name, {**options, **choice.options}
    scheduler_class = find_scheduler_class(config.get("_class_name"), name)
    own_keys = {field.name for field in fields(scheduler_class.config_class)}
    own = {
        key: scheduler_class.foreign_values.get((key, value), value)
        if isinstance(value, str)
        else value
        for key, value in options.items()
        if key in own_keys
    }
    parsed: Any = read_config(scheduler_class.config_class, own)
    if issubclass(scheduler_class, (DDIMScheduler, TCDScheduler)):
        scheduler: Scheduler[Any] = scheduler_class(parsed, eta=eta)
    elif eta != 0:
        raise RequestError(
            f"eta={eta!r} has no effect on {scheduler_class.__name__}",
            allowed="eta=0, or the scheduler 'ddim' or 'tcd'",
            fix="leave eta out, or choose the scheduler 'ddim' or 'tcd'",
        )
    elif issubclass(scheduler_class, DPMSolverSDEScheduler):
        scheduler = scheduler_class(parsed, seeds=seeds)
    else:
        scheduler = scheduler_class(parsed)
    ignored = {key: value for key, value in options.items() if key not in own}
    scheduler.ignored_options = MappingProxyType(ignored)
    if ignored.get("rescale_betas_zero_snr"):
        logger.warning(
            "%s has no rescale_betas_zero_snr: its noise schedule is not the one of the training",
            scheduler_class.__name__,
        )
    return scheduler


def _read_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Options that the file sets, without metadata; every key must be known to the family."""
    defaulted = config.get("_use_default_values", ())
    if not isinstance(defaulted, (list, tuple)):
        raise ConfigError(
            f"scheduler option _use_default_values={show(defaulted)} is not supported",
            allowed="a list of options",
            fix="remove it from scheduler_config.json",
        )
    options = {
        key: value
        for key, value in config.items()
        if not key.startswith("_") and key not in defaulted
    }
    known = {field.name for each in SCHEDULERS.values() for field in fields(each.config_class)}
    for key, value in options.items():
        if key not in known:
            raise unknown_option(key, value, sorted(known))
    return options
