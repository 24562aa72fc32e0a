"""SDXL's request, with its fields beyond those of all families, and the checked plan made of it."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from fastdeploy_diffusion.config import RequestDefaults
from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.request_fields import FIELDS
from fastdeploy_diffusion.requests.checked_values import check_number
from fastdeploy_diffusion.requests.model_limits import ModelLimits
from fastdeploy_diffusion.requests.plan import GenerationPlan, plan_generation
from fastdeploy_diffusion.requests.request import GenerationRequest, explains_fields
from fastdeploy_diffusion.requests.second_texts import name_second, spread_seconds
from fastdeploy_diffusion.shown import show

SizeNumbers = tuple[float, ...]
"""Height and width of the original, top and left of the crop, height and width of the target; for
a refiner, an aesthetic score in place of the last two."""

_PARTS = ("original_size", "crops_coords_top_left", "target_size")
_NEGATIVE_PARTS = tuple(f"negative_{name}" for name in _PARTS)
_SIZES = (*_PARTS, *_NEGATIVE_PARTS)
_SCORES = ("aesthetic_score", "negative_aesthetic_score")
_USUAL_SCORES = (6.0, 2.5)
_LEAVE_OUT = "leave it out"


@explains_fields
@dataclass(frozen=True, kw_only=True)
class SDXLRequest(GenerationRequest):
    """One call of text-to-image with Stable Diffusion XL; pairs are numbers of pixels."""

    prompt_2: str | Sequence[str] | None = None
    negative_prompt_2: str | Sequence[str] | None = None
    denoising_start: float | None = None
    denoising_end: float | None = None
    aesthetic_score: float | None = None
    negative_aesthetic_score: float | None = None
    original_size: tuple[int, int] | None = None
    crops_coords_top_left: tuple[int, int] | None = None
    target_size: tuple[int, int] | None = None
    negative_original_size: tuple[int, int] | None = None
    negative_crops_coords_top_left: tuple[int, int] | None = None
    negative_target_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class SDXLPlan(GenerationPlan):
    """A request with every default filled in and every value checked.

    ``prompts_2`` and ``negative_prompts_2`` have one entry for each picture. With
    ``has_zero_negative``, zeros replace the embeddings of negative prompts.
    """

    prompts_2: tuple[str, ...]
    negative_prompts_2: tuple[str, ...]
    has_negative: bool
    has_zero_negative: bool
    sizes: SizeNumbers
    negative_sizes: SizeNumbers
    denoising_start: float | None
    denoising_end: float | None

    @property
    def is_handed_over(self) -> bool:
        """Whether the first latents, or the given pictures, have their noise already."""
        return self.denoising_start is not None

    @property
    def strength(self) -> float | None:
        """Share of the steps that change the given pictures, if it decides their number."""
        return None if self.is_handed_over else super().strength

    def settings(self, index: int) -> dict[str, Any]:
        """The keyword arguments of ``text_to_image`` that make picture ``index`` again."""
        negative, negative_2 = self.negative_prompts[index], self.negative_prompts_2[index]
        given = {name: getattr(self.request, name) for name in _SIZES}
        return {
            **super().settings(index),
            # An empty one is not the same as none.
            "negative_prompt": negative if self.has_negative else None,
            "prompt_2": name_second(self.prompts[index], self.prompts_2[index]),
            "negative_prompt_2": name_second(negative, negative_2),
            **{name: pair and [int(each) for each in pair] for name, pair in given.items()},
        }


def plan_sdxl(
    request: GenerationRequest, defaults: RequestDefaults, limits: ModelLimits, *, has_zeros: bool
) -> SDXLPlan:
    """Fill in defaults (request > config > model) and check every value.

    Args:
        has_zeros: Whether zeros replace the embeddings of a negative prompt that is left out.

    Raises:
        RequestError: A value is not allowed; the message says which are.

    Warns:
        UserWarning: Sizes for the negative prompt have no effect without guidance.
    """
    asked = SDXLRequest.widen(request)
    start, end = _read_shares(asked, limits)
    if start is not None:
        strength = None if asked.image is None else 1.0  # of which nothing is taken
        asked = replace(_fit_to_latents(asked, limits), strength=strength)
    plan = plan_generation(asked, defaults, limits)
    if plan.hires is not None and end not in (None, 1):
        raise RequestError(
            f"hires_scale is {plan.hires.scale:g}, and denoising_end {end:g}, which leaves noise",
            allowed="one of them",
            fix="denoising_end=1, which leaves a refiner out, or hires_scale=1",
        )
    has_negative = asked.negative_prompt is not None or defaults.negative_prompt is not None
    if has_zeros and asked.negative_prompt_2 is not None and not has_negative:
        raise RequestError(
            "negative_prompt_2 is given, and negative_prompt is not: without one, this model "
            "takes zeros for both",
            fix="give negative_prompt as well, which may be empty",
        )
    sizes, negative_sizes = _read_sizes(
        {name: getattr(asked, name) for name in _SIZES},
        (plan.height, plan.width),
        is_guided=plan.is_guided,
    )
    if limits.is_refiner:
        scores = [
            usual if given is None else check_number(name, given)
            for name, given, usual in _list_scores(asked)
        ]
        sizes, negative_sizes = (*sizes[:4], scores[0]), (*negative_sizes[:4], scores[1])
    return SDXLPlan(
        **{each.name: getattr(plan, each.name) for each in fields(plan)},
        prompts_2=spread_seconds("prompt_2", asked.prompt_2, plan.prompts, asked),
        negative_prompts_2=spread_seconds(
            "negative_prompt_2", asked.negative_prompt_2, plan.negative_prompts, asked
        ),
        has_negative=has_negative,
        has_zero_negative=has_zeros and not has_negative,
        sizes=sizes,
        negative_sizes=negative_sizes,
        denoising_start=start,
        denoising_end=end,
    )


def require_beginning(request: GenerationRequest, limits: ModelLimits) -> None:
    """Refuse a request that refines nothing, or begins with nothing in the schedule's middle.

    Raises:
        RequestError: There is neither picture nor latents.
    """
    asked = SDXLRequest.widen(request)
    is_late = asked.denoising_start is not None
    if asked.image is not None or (is_late and asked.latents is not None):
        return
    if limits.is_refiner:
        raise RequestError(
            f"{limits.model} is SDXL's refiner, and there is no picture to refine",
            allowed="pipeline.image_to_image(prompt, image)",
            fix="open the base model, with refiner=… for this one",
        )
    if is_late:
        raise RequestError(
            "denoising_start is given without a picture",
            allowed="pipeline.image_to_image(prompt, image, denoising_start=…), the image being a "
            "picture, or latents that another model left",
            fix="leave denoising_start out",
        )


def plan_refinement(plan: SDXLPlan) -> SDXLRequest:
    """Make the request of a refiner that goes on where a plan ends."""
    request = plan.request
    assert isinstance(request, SDXLRequest)
    chosen = ("timesteps", "sigmas", "guidance_rescale", "prompt_syntax", "clip_skip", "eta")
    kept = (*chosen, *_SIZES, *_SCORES, "scheduler", "output_type", "callback_on_step_end")
    return SDXLRequest(
        prompt=plan.prompts,
        negative_prompt=plan.negative_prompts if plan.has_negative else None,
        height=plan.height,
        width=plan.width,
        num_inference_steps=plan.given_steps,
        guidance_scale=plan.guidance_scale,
        hires_scale=1.0,
        seed=plan.seeds,
        denoising_start=plan.denoising_end,
        callback_on_step_end_tensor_inputs=request.callback_on_step_end_tensor_inputs,
        **{name: getattr(request, name) for name in kept},
    )


def _list_scores(request: SDXLRequest) -> list[tuple[str, float | None, float]]:
    given = [getattr(request, name) for name in _SCORES]
    return list(zip(_SCORES, given, _USUAL_SCORES, strict=True))


def _read_shares(request: SDXLRequest, limits: ModelLimits) -> tuple[float | None, float | None]:
    """Check where a request begins and ends in the noise's schedule, and fill in the end.

    Raises:
        RequestError: A share is not allowed, or has no effect with other fields.
    """
    shares = {
        name: None if given is None else check_number(name, given)
        for name, given in (
            ("denoising_start", request.denoising_start),
            ("denoising_end", request.denoising_end),
        )
    }
    start, end = shares.values()
    for name, share in shares.items():
        if share == 0 or (share == 1 and name == "denoising_start"):
            raise RequestError(f"{name} is {share:g}", allowed=FIELDS[name].more, fix=_LEAVE_OUT)
        if share is not None and request.mask is not None:
            raise RequestError(
                f"{name} is given, and a mask", allowed="one of them", fix=f"leave {name} out"
            )
    if start is not None and end is not None and start >= end:
        raise RequestError(
            f"denoising_start is {start:g}, and denoising_end {end:g}",
            allowed="a denoising_start below denoising_end",
        )
    if start is not None and request.strength is not None:
        raise RequestError(
            "strength has no effect with denoising_start", fix="leave one of them out"
        )
    is_refined = limits.refined_from is not None
    for name, given, _ in _list_scores(request):
        if given is not None and not (is_refined or limits.is_refiner):
            raise RequestError(
                f"{name} is {show(given)}, and has no effect without a refiner",
                allowed="a score for SDXL's refiner",
                fix=f"leave {name} out, or give refiner=… in DiffusionConfig",
            )
    if end is None and request.image is None and start is None:
        end = limits.refined_from
    return start, end


def _fit_to_latents(request: SDXLRequest, limits: ModelLimits) -> SDXLRequest:
    """Fill in the size that latents have, where the request leaves it out."""
    shape = getattr(request.latents, "shape", ())
    if request.image is not None or len(shape) != 4:
        return request
    height, width = (limits.multiple * each for each in shape[2:])
    return replace(request, height=request.height or height, width=request.width or width)


def _read_sizes(
    given: Mapping[str, Any], size: tuple[int, int], *, is_guided: bool
) -> tuple[SizeNumbers, SizeNumbers]:
    """Check a request's size conditioning, and fill in defaults.

    Args:
        given: By the names of ``_SIZES``; ``None`` where left out.
        size: Height and width of the picture.
        is_guided: Whether there is a negative prompt to condition.

    Returns:
        The sizes that prompt and negative prompt are conditioned on.

    Raises:
        RequestError: A value is no pair of whole numbers, or one for the negative prompt has no
            effect without another.

    Warns:
        UserWarning: There is no negative prompt to condition.
    """
    pairs = {name: _read_pair(name, pair) for name, pair in given.items() if pair is not None}
    original, target = (pairs.get(name, size) for name in ("original_size", "target_size"))
    sizes = (*original, *pairs.get("crops_coords_top_left", (0, 0)), *target)
    negative = [name for name in _NEGATIVE_PARTS if name in pairs]
    if not negative:
        return sizes, sizes
    wanted = ("negative_original_size", "negative_target_size")
    if missing := [name for name in wanted if name not in pairs]:
        raise RequestError(
            f"{' and '.join(negative)} given without {' and '.join(missing)}",
            allowed=f"{' and '.join(wanted)} together, or none of them",
            fix=f"give {' and '.join(missing)}, too",
        )
    if not is_guided:
        message = f"{', '.join(negative)} have no effect with a guidance_scale of 1 or less"
        warnings.warn(message, UserWarning, stacklevel=5)
    crop = pairs.get("negative_crops_coords_top_left", (0, 0))
    return sizes, (*pairs[wanted[0]], *crop, *pairs[wanted[1]])


def _read_pair(name: str, given: Any) -> tuple[int, int]:
    field = FIELDS[name]
    is_list = isinstance(given, Sequence) and not isinstance(given, str | bytes)
    is_pair = is_list and len(given) == 2
    if not is_pair or not all(_is_whole(each) and field.fits(each) for each in given):
        first, second = ("top", "left") if field.least == 0 else ("height", "width")
        raise RequestError(
            f"{name} is {show(given)}",
            allowed=f"({first}, {second}), two whole numbers of pixels from {field.least} to "
            f"{field.most}",
        )
    return int(given[0]), int(given[1])


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
