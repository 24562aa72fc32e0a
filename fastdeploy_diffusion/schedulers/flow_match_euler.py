"""Euler along rectified flows (Liu et al., 2023; Esser et al., 2024), the scheduler of Flux."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fastdeploy_diffusion.errors import ConfigError, RequestError
from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.base import DrawNoise
from fastdeploy_diffusion.schedulers.config import SchedulerConfig
from fastdeploy_diffusion.schedulers.custom_plan import read_shares
from fastdeploy_diffusion.schedulers.flow_match import FlowMatchScheduler
from fastdeploy_diffusion.schedulers.noise_levels import (
    check_spacings,
    space_by_beta,
    space_evenly_in_logarithms,
    space_evenly_in_roots,
)

_LARGEST_SHIFT = 20  # of all published models 1.15; from 100 on, float32 knows no other noise


@dataclass(frozen=True, kw_only=True)
class FlowMatchEulerConfig(SchedulerConfig):
    """How the share of noise falls from 1 to 0; of the inherited options only the length counts.

    Attributes:
        shift: Moves steps towards noise (above 1), for any size of the picture.
        use_dynamic_shifting: Let the number of picture tokens decide that instead.
        base_shift: Shift at ``base_image_seq_len`` tokens …
        max_shift: … and at ``max_image_seq_len``; linear between and beyond.
        base_image_seq_len: Tokens.
        max_image_seq_len: Tokens.
        time_shift_type: Whether the dynamic shift is an exponent or a factor.
        shift_terminal: Share of noise at the last step; the others are stretched to it.
        invert_sigmas: Count from 0 to 1.
        use_karras_sigmas: Space them by equation 5 of https://arxiv.org/abs/2206.00364.
        use_exponential_sigmas: Space their logarithms evenly.
        use_beta_sigmas: Space them by quantiles of a beta distribution, dense at both ends.
        stochastic_sampling: Draw new noise at every step.
    """

    shift: Annotated[float, Field(ge=0.001, le=1000)] = 1.0
    use_dynamic_shifting: bool = False
    base_shift: Annotated[float, Field(ge=-10, le=10)] = 0.5
    max_shift: Annotated[float, Field(ge=-10, le=10)] = 1.15
    base_image_seq_len: Annotated[int, Field(gt=0, le=2**24)] = 256
    max_image_seq_len: Annotated[int, Field(gt=0, le=2**24)] = 4096
    time_shift_type: Literal["exponential", "linear"] = "exponential"
    shift_terminal: Annotated[float, Field(ge=0, lt=1)] | None = None
    invert_sigmas: bool = False
    use_karras_sigmas: bool | None = False
    use_exponential_sigmas: bool | None = False
    use_beta_sigmas: bool | None = False
    stochastic_sampling: bool = False

    def __post_init__(self) -> None:
        check_spacings(self)
        if self.base_image_seq_len == self.max_image_seq_len:
            raise ConfigError(
                f"scheduler options base_image_seq_len and max_image_seq_len are both "
                f"{self.base_image_seq_len}",
                allowed="two different numbers of tokens",
            )


class FlowMatchEulerScheduler(FlowMatchScheduler[FlowMatchEulerConfig]):
    """Straight steps along the velocity that the model predicts."""

    diffusers_name = "FlowMatchEulerDiscreteScheduler"
    config_class = FlowMatchEulerConfig

    def __init__(self, config: FlowMatchEulerConfig) -> None:
        super().__init__(config)
        self._tokens: int | None = None

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        image_tokens: int | None = None,
    ) -> None:
        """Plan a request and forget the last one.

        Args:
            num_inference_steps: Number of steps, from 1 to the training length.
            timesteps: Not for this scheduler, whose timesteps follow from its noise levels.
            sigmas: Share of noise at each step before any shift, descending, in (0, 1]; evenly
                spaced over those of the training if left out.
            image_tokens: Of the picture; needed with ``use_dynamic_shifting``.

        Raises:
            RequestError: A value cannot be served.
        """
        if self.config.use_dynamic_shifting and image_tokens is None:
            raise RequestError(
                "the scheduler shifts its steps by the size of the picture, which was not given",
                fix="set_timesteps(…, image_tokens=…)",
            )
        self._tokens = image_tokens
        if timesteps is not None:
            self._follow(num_inference_steps, timesteps, None)
        if sigmas is None:
            steps = self.check_steps(num_inference_steps)
            levels = self._space(steps)
        else:
            levels = read_shares(sigmas)
            steps = len(levels)
            if num_inference_steps not in (None, steps):
                raise self.refuse_steps(num_inference_steps, f"{steps}, one for each of sigmas")
        self._begin(self._plan_sigmas(levels), steps)

    def _plan(self, steps: int) -> TimestepArray:
        return self._plan_sigmas(self._space(steps))

    def _plan_sigmas(self, sigmas: FloatArray) -> TimestepArray:
        config, steps = self.config, len(sigmas)
        sigmas = self._shift(sigmas)
        if config.shift_terminal:
            left = 1 - sigmas
            if left[-1] == 0:
                raise self.refuse_steps(
                    steps, "2 or more: shift_terminal stretches what lies below pure noise"
                )
            sigmas = 1 - left * ((1 - config.shift_terminal) / left[-1])
        ends = float(sigmas[-1]), float(sigmas[0])
        if config.use_karras_sigmas:
            sigmas = space_evenly_in_roots(*ends, steps)
        elif config.use_exponential_sigmas:
            sigmas = space_evenly_in_logarithms(*ends, steps)
        elif config.use_beta_sigmas:
            sigmas = space_by_beta(*ends, steps)
        final = 1.0 if config.invert_sigmas else 0.0
        rounded = sigmas.astype(np.float32)
        rounded = 1 - rounded if config.invert_sigmas else rounded
        self.sigmas = np.append(rounded, np.float32(final))
        return np.asarray(rounded * np.float32(config.num_train_timesteps))

    def _space(self, steps: int) -> FloatArray:
        """Spread steps over the noise levels of training, which are statically shifted."""
        length = self.config.num_train_timesteps
        ends = np.array([1.0, 1.0 / length], np.float32)
        if not self.config.use_dynamic_shifting:
            ends = self._shift(ends)
        return np.linspace(float(ends[0]) * length, float(ends[1]) * length, steps) / length

    def _shift(self, sigmas: FloatArray) -> FloatArray:
        config = self.config
        if not config.use_dynamic_shifting:
            return np.asarray(config.shift * sigmas / (1 + (config.shift - 1) * sigmas))
        slope = (config.max_shift - config.base_shift) / (
            config.max_image_seq_len - config.base_image_seq_len
        )
        shift = config.base_shift + slope * ((self._tokens or 0) - config.base_image_seq_len)
        is_exponent = config.time_shift_type == "exponential"
        if abs(shift) > _LARGEST_SHIFT or not (is_exponent or shift > 0):
            raise ConfigError(
                f"a picture of {self._tokens} tokens is shifted by {shift:g}",
                allowed=f"-{_LARGEST_SHIFT} to {_LARGEST_SHIFT}, and more than 0 with "
                "time_shift_type='linear'",
                fix="correct base_shift, max_shift, base_image_seq_len or max_image_seq_len in "
                "scheduler_config.json, or draw a smaller picture",
            )
        factor = math.exp(shift) if is_exponent else shift
        return np.asarray(factor / (factor + (1 / sigmas - 1)))

    def _step(
        self, position: int, model_output: FloatArray, latents: FloatArray, noise: DrawNoise
    ) -> FloatArray:
        sigma, following = (float(each) for each in self.sigmas[position : position + 2])
        if not self.config.stochastic_sampling:
            return np.asarray(latents + np.float32(following - sigma) * model_output)
        clean = latents - np.float32(sigma) * model_output
        return np.asarray(np.float32(1 - following) * clean + np.float32(following) * noise())
