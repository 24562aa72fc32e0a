"""SDXL's request, with its fields beyond those of all families, and the checked plan made of it."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from fastdeploy_diffusion.config import RequestDefaults
from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.request_fields import FIELDS
from fastdeploy_diffusion.requests.model_limits import ModelLimits
from fastdeploy_diffusion.requests.plan import GenerationPlan, plan_generation
from fastdeploy_diffusion.requests.request import GenerationRequest, explains_fields
from fastdeploy_diffusion.requests.second_texts import name_second, spread_seconds
from fastdeploy_diffusion.shown import show

SizeNumbers = tuple[int, ...]
"""Height and width of the original, top and left of the crop, height and width of the target."""

_PARTS = ("original_size", "crops_coords_top_left", "target_size")
_NEGATIVE_PARTS = tuple(f"negative_{name}" for name in _PARTS)
_SIZES = (*_PARTS, *_NEGATIVE_PARTS)


@explains_fields
@dataclass(frozen=True, kw_only=True)
class SDXLRequest(GenerationRequest):
    """One call of text-to-image with Stable Diffusion XL; pairs are numbers of pixels."""

    prompt_2: str | Sequence[str] | None = None
    negative_prompt_2: str | Sequence[str] | None = None
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
    plan = plan_generation(asked, defaults, limits)
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
    )


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
