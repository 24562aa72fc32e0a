"""Correct scheduler configs of early checkpoints, as diffusers' pipelines for them do."""

import warnings
from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from fastdeploy_diffusion.schedulers.registry import find_scheduler_class

_CORRECT: Mapping[str, Any] = MappingProxyType({"clip_sample": False, "steps_offset": 1})


def correct_outdated(config: Mapping[str, Any], file: object) -> dict[str, Any]:
    """Set ``clip_sample`` to false and ``steps_offset`` to 1, whatever a file has or leaves out.

    They hold for the file's own scheduler, and for any that takes its place.

    Args:
        config: Content of ``scheduler_config.json``.
        file: Where it stands, for messages.

    Raises:
        ConfigError: The class is unknown.

    Warns:
        UserWarning: An option of the file's scheduler was another.
    """
    defaulted = config.get("_use_default_values")
    if not isinstance(defaulted, list):
        defaulted = []
    set_here = {key: value for key, value in config.items() if key not in defaulted}
    config_class = find_scheduler_class(config.get("_class_name")).config_class
    effective = {field.name: field.default for field in fields(config_class)} | set_here
    for name, value in _CORRECT.items():
        has_effect = name != "steps_offset" or effective["timestep_spacing"] == "leading"
        if has_effect and effective.get(name, value) != value:
            warnings.warn(
                f"{file}: {name}={effective[name]!r} is outdated, and {name}={value!r} is taken, "
                "as by the pipelines of Stable Diffusion in diffusers; write it into the file",
                UserWarning,
                stacklevel=2,
            )
    return {
        **config,
        **_CORRECT,
        "_use_default_values": [each for each in defaulted if each not in _CORRECT],
    }
