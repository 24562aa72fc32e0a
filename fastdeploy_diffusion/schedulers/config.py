"""Options of every ``scheduler_config.json`` of the diffusers family, read strictly."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.shown import show

BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp"]
TimestepSpacing = Literal["linspace", "leading", "trailing"]
PredictionType = Literal["epsilon", "v_prediction", "sample"]
FinalSigma = Literal["zero", "sigma_min"]
# Ranges far wider than any published file needs, in which nothing overflows. They refuse NaN, too.
TrainingLength = Annotated[int, Field(gt=0, le=100_000)]
Beta = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Magnitude = Annotated[float, Field(gt=0, le=1e6)]
NoiseLevel = Annotated[float, Field(gt=1e-8, le=1e6)]


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """The noise schedule a model was trained with, and how inference visits it.

    An option of which only one value is implemented is typed ``Literal[that value]``: any other
    value in a file is then refused by name.

    Attributes:
        num_train_timesteps: Length of the training schedule.
        beta_start: First beta.
        beta_end: Last beta.
        beta_schedule: Curve from ``beta_start`` to ``beta_end``.
        trained_betas: Betas given one by one, in place of the curve.
        prediction_type: The denoiser's output: the noise, the velocity or the clean latents.
        timestep_spacing: Table 2 of https://arxiv.org/abs/2305.08891.
        steps_offset: Added to every timestep when the spacing is "leading".
    """

    num_train_timesteps: TrainingLength = 1000
    beta_start: Beta = 0.0001
    beta_end: Beta = 0.02
    beta_schedule: BetaSchedule = "linear"
    trained_betas: list[Beta] | None = None
    prediction_type: PredictionType = "epsilon"
    timestep_spacing: TimestepSpacing = "leading"
    steps_offset: Annotated[int, Field(ge=0)] = 0


ConfigT = TypeVar("ConfigT", bound=SchedulerConfig)


def read_config(config_class: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """Validate a file's options for one scheduler.

    Args:
        values: Options from the file; every key must be a field of ``config_class``.

    Raises:
        ConfigError: A key is unknown or a value is not implemented; the message names both.
    """
    types = get_type_hints(config_class, include_extras=True)
    finite = ConfigDict(allow_inf_nan=False)
    read = {}
    for key, value in values.items():
        if key not in types:
            raise unknown_option(key, value, list(types))
        # The one option that is infinite in published files, where it stands for "none".
        settings = ConfigDict() if value == -math.inf else finite
        try:
            adapter = TypeAdapter(types[key], config=settings)
            read[key] = adapter.validate_python(value, strict=True)
        except ValidationError as error:
            raise ConfigError(
                f"scheduler option {key}={show(value)} is not supported",
                allowed=error.errors()[0]["msg"],
                fix=f"edit {key} in scheduler_config.json, or choose another scheduler",
            ) from error
    config = config_class(**read)
    _check_schedule(config)
    return config


def _check_schedule(config: SchedulerConfig) -> None:
    """Refuse contradictory options, each of which may be right by itself."""
    betas, length = config.trained_betas, config.num_train_timesteps
    if betas is not None and len(betas) != length:
        raise ConfigError(
            f"scheduler option trained_betas holds {len(betas)} values",
            allowed=f"one value per training timestep: {length}",
            fix="correct trained_betas or num_train_timesteps in scheduler_config.json",
        )
    uses_ends = betas is None and config.beta_schedule in ("linear", "scaled_linear", "sigmoid")
    if uses_ends and config.beta_start > config.beta_end:
        raise ConfigError(
            f"scheduler option beta_start={config.beta_start} is larger than "
            f"beta_end={config.beta_end}",
            allowed="betas that grow: each step of the training adds more noise",
            fix="correct beta_start or beta_end in scheduler_config.json",
        )
    if config.steps_offset >= length:
        raise ConfigError(
            f"scheduler option steps_offset={config.steps_offset} moves every timestep past the "
            f"last trained one, {length - 1}",
            allowed=f"0 to {length - 1}, and 0 or 1 in published models",
            fix="correct steps_offset in scheduler_config.json",
        )


def unknown_option(key: str, value: object, known: list[str]) -> ConfigError:
    """Make the error for a key that no scheduler of the family has, with the nearest known key."""
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return ConfigError(
        f"unknown scheduler option {key}={show(value)}",
        allowed=", ".join(sorted(known)),
        fix=f"{hint}correct or remove {show(key)} in scheduler_config.json",
    )
