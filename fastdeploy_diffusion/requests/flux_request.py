"""Flux's request, with its fields beyond those of all families, and the checked plan made of it."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from fastdeploy_diffusion.config import RequestDefaults
from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.request_fields import PLAIN, WEIGHTED
from fastdeploy_diffusion.requests.checked_values import check_choices, check_number
from fastdeploy_diffusion.requests.model_limits import ModelLimits
from fastdeploy_diffusion.requests.plan import GenerationPlan, plan_generation
from fastdeploy_diffusion.requests.request import GenerationRequest, explains_fields
from fastdeploy_diffusion.requests.second_texts import name_second, spread_seconds
from fastdeploy_diffusion.schedulers.custom_plan import read_shares
from fastdeploy_diffusion.shown import show

NO_WEIGHTS = (
    "Flux reads prompts without weights and chunks: of CLIP it takes one vector for the whole "
    "prompt, in which no word has features of its own to weigh; of T5 it takes features that "
    "depend on all words, for which no rule of weights is published, up to max_sequence_length "
    "tokens at once"
)
NO_WEIGHTS_FIX = "leave prompt_syntax and prompt_chunks out, and say in words what matters"


@explains_fields
@dataclass(frozen=True, kw_only=True)
class FluxRequest(GenerationRequest):
    """One call of text-to-image with Flux, whose ``guidance_scale`` it was distilled for."""

    prompt_2: str | Sequence[str] | None = None
    negative_prompt_2: str | Sequence[str] | None = None
    true_cfg_scale: float = 1.0
    max_sequence_length: int | None = None


@dataclass(frozen=True)
class FluxPlan(GenerationPlan):
    """A request with every default filled in and every value checked.

    ``prompts_2`` and ``negative_prompts_2`` have one entry for each picture.
    """

    prompts_2: tuple[str, ...]
    negative_prompts_2: tuple[str, ...]
    true_cfg_scale: float
    max_sequence_length: int
    is_distilled: bool

    @property
    def is_guided(self) -> bool:
        """Whether the denoiser runs on the negative prompt, too."""
        return self.true_cfg_scale > 1

    @property
    def guidance(self) -> tuple[str, float]:
        """Name the guidance setting in use, with its value."""
        return ("true_cfg_scale", self.true_cfg_scale) if self.is_guided else super().guidance

    def settings(self, index: int) -> dict[str, Any]:
        """The keyword arguments of ``text_to_image`` that make picture ``index`` again."""
        prompt_2 = name_second(self.prompts[index], self.prompts_2[index])
        negative_2 = name_second(self.negative_prompts[index], self.negative_prompts_2[index])
        return {
            **super().settings(index),
            "negative_prompt": self.negative_prompts[index] if self.is_guided else None,
            "guidance_scale": self.guidance_scale if self.is_distilled else None,
            "prompt_2": prompt_2,
            "negative_prompt_2": negative_2 if self.is_guided else None,
        }


def plan_flux(
    request: GenerationRequest, defaults: RequestDefaults, limits: ModelLimits
) -> FluxPlan:
    """Fill in defaults (request > config > model) and check every value.

    Raises:
        RequestError: A value is not allowed; the message says which are.

    Warns:
        UserWarning: ``negative_prompt`` has no effect without ``true_cfg_scale``, or the reverse.
    """
    asked = check_choices(FluxRequest.widen(request))
    _check_effects(asked, defaults, limits)
    if asked.sigmas is not None:
        read_shares(asked.sigmas)
    plan = plan_generation(asked, defaults, limits)
    length = asked.max_sequence_length
    if length is None:
        length = defaults.max_sequence_length or limits.defaults.max_sequence_length
    is_guided = _is_guided(asked, defaults)
    return FluxPlan(
        **{each.name: getattr(plan, each.name) for each in fields(plan)},
        prompts_2=spread_seconds("prompt_2", asked.prompt_2, plan.prompts, asked),
        negative_prompts_2=spread_seconds(
            "negative_prompt_2", asked.negative_prompt_2, plan.negative_prompts, asked
        ),
        true_cfg_scale=float(asked.true_cfg_scale) if is_guided else 1.0,
        max_sequence_length=check_number("max_sequence_length", length),
        is_distilled=limits.defaults.guidance_scale > 0,
    )


def _check_effects(request: FluxRequest, defaults: RequestDefaults, limits: ModelLimits) -> None:
    if request.prompt_syntax == WEIGHTED or request.prompt_chunks is not None:
        raise RequestError(NO_WEIGHTS, allowed=f"prompt_syntax={PLAIN!r}", fix=NO_WEIGHTS_FIX)
    without = (("guidance_rescale", 0.0), ("scheduler", None), ("eta", 0.0), ("clip_skip", None))
    left_out = {name: getattr(request, name) == nothing for name, nothing in without}
    for name, is_left_out in {**left_out, "timesteps": request.timesteps is None}.items():
        if not is_left_out:
            raise RequestError(
                f"{name} is {show(getattr(request, name))}, and has no effect on Flux",
                fix=f"leave {name} out",
            )
    for name, given in (
        ("guidance_scale", request.guidance_scale),
        ("defaults.guidance_scale", defaults.guidance_scale),
    ):
        if given is not None and not limits.defaults.guidance_scale:
            raise RequestError(
                f"{name} is {show(given)}, and {limits.model} was not distilled for guidance",
                allowed="a guidance scale for models with guidance_embeds, as FLUX.1-dev",
                fix=f"leave {name} out; negative_prompt with true_cfg_scale guides any model, at "
                "twice the cost",
            )


def _is_guided(request: FluxRequest, defaults: RequestDefaults) -> bool:
    scale = check_number("true_cfg_scale", request.true_cfg_scale)
    has_negative = request.negative_prompt is not None or defaults.negative_prompt is not None
    if has_negative and scale <= 1:
        warnings.warn(
            f"negative_prompt has no effect with true_cfg_scale={scale}; give one above 1",
            UserWarning,
            stacklevel=4,
        )
    if scale > 1 and not has_negative:
        warnings.warn(
            f"true_cfg_scale={scale} has no effect without negative_prompt, which may be empty",
            UserWarning,
            stacklevel=4,
        )
    return scale > 1 and has_negative
