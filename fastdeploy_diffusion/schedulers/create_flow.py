"""Create the scheduler of a rectified-flow checkpoint from its scheduler_config.json."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.schedulers.config import SchedulerConfig, read_config, unknown_option
from fastdeploy_diffusion.schedulers.flow_match_euler import FlowMatchEulerScheduler
from fastdeploy_diffusion.schedulers.flow_match_heun import FlowMatchHeunScheduler
from fastdeploy_diffusion.shown import show

FlowScheduler = FlowMatchEulerScheduler | FlowMatchHeunScheduler

_CLASSES: Mapping[str, type[FlowMatchEulerScheduler] | type[FlowMatchHeunScheduler]] = {
    each.diffusers_name: each for each in (FlowMatchEulerScheduler, FlowMatchHeunScheduler)
}
# Options of the base config that say nothing of a flow.
_WITHOUT_EFFECT = {each.name for each in fields(SchedulerConfig)} - {"num_train_timesteps"}


def create_flow_scheduler(config: Mapping[str, Any]) -> FlowScheduler:
    """Create the scheduler of a rectified-flow checkpoint.

    Raises:
        ConfigError: The class, an option or a value is unknown or not implemented.
    """
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in _CLASSES:
        raise ConfigError(
            f"_class_name={show(name)} in scheduler_config.json is not implemented for Flux",
            allowed=", ".join(_CLASSES),
        )
    options = {key: value for key, value in config.items() if not key.startswith("_")}
    known = {
        field.name for each in _CLASSES.values() for field in fields(each.config_class)
    } - _WITHOUT_EFFECT
    for key, value in options.items():
        if key not in known:
            raise unknown_option(key, value, sorted(known))
    if name == FlowMatchHeunScheduler.diffusers_name:
        config_class = FlowMatchHeunScheduler.config_class
        own = {field.name for field in fields(config_class)}
        read = {key: value for key, value in options.items() if key in own}
        return FlowMatchHeunScheduler(read_config(config_class, read))
    return FlowMatchEulerScheduler(read_config(FlowMatchEulerScheduler.config_class, options))
