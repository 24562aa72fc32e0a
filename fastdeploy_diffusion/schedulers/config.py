"""What every ``scheduler_config.json`` of the diffusers family says, read strictly."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from fastdeploy_diffusion.errors import ConfigError

BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp"]
TimestepSpacing = Literal["linspace", "leading", "trailing"]
PredictionType = Literal["epsilon", "v_prediction", "sample"]
FinalSigma = Literal["zero", "sigma_min"]


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
        prediction_type: What the denoiser returns: the noise, the velocity or the clean latents.
        timestep_spacing: Table 2 of https://arxiv.org/abs/2305.08891.
        steps_offset: Added to every timestep when the spacing is "leading".
    """

    num_train_timesteps: Annotated[int, Field(gt=0)] = 1000
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 0.0001
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    beta_schedule: BetaSchedule = "linear"
    trained_betas: list[Annotated[float, Field(gt=0, lt=1)]] | None = None
    prediction_type: PredictionType = "epsilon"
    timestep_spacing: TimestepSpacing = "leading"
    steps_offset: Annotated[int, Field(ge=0)] = 0


ConfigT = TypeVar("ConfigT", bound=SchedulerConfig)


def read_config(config_class: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """Validate a file's options for one scheduler.

    Args:
        config_class: The scheduler's config.
        values: Options from the file; every key must be a field of ``config_class``.

    Raises:
        ConfigError: A key is unknown or a value is not implemented; the message names both.
    """
    types = get_type_hints(config_class, include_extras=True)
    for key, value in values.items():
        if key not in types:
            raise unknown_option(key, value, list(types))
        try:
            TypeAdapter(types[key]).validate_python(value, strict=True)
        except ValidationError as error:
            raise ConfigError(
                f"scheduler option {key}={value!r} is not supported",
                allowed=error.errors()[0]["msg"],
                fix=f"edit {key} in scheduler_config.json, or choose another scheduler",
            ) from error
    config = config_class(**values)
    betas = config.trained_betas
    if betas is not None and len(betas) != config.num_train_timesteps:
        raise ConfigError(
            f"scheduler option trained_betas holds {len(betas)} values",
            allowed=f"one value per training timestep: {config.num_train_timesteps}",
            fix="correct trained_betas or num_train_timesteps in scheduler_config.json",
        )
    return config


def unknown_option(key: str, value: object, known: list[str]) -> ConfigError:
    """The error for a key that no scheduler of the family has, with the nearest known key."""
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return ConfigError(
        f"unknown scheduler option {key}={value!r}",
        allowed=", ".join(sorted(known)),
        fix=f"{hint}correct or remove {key!r} in scheduler_config.json",
    )
