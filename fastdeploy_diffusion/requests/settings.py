"""The keyword arguments of ``text_to_image``, as type checkers and editors read them."""

from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from inspect import Parameter, Signature
from typing import Any, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.requests.request import GenerationRequest, StepCallback

Function = TypeVar("Function", bound=Callable[..., Any])


class Settings(TypedDict, total=False):
    """Fields of `GenerationRequest`, but for those that decide what is returned."""

    negative_prompt: str | Sequence[str] | None
    height: int | None
    width: int | None
    num_inference_steps: int | None
    guidance_scale: float | None
    guidance_rescale: float
    seed: int | Sequence[int] | None
    eta: float
    latents: npt.NDArray[np.float32] | None
    clip_skip: int | None
    callback_on_step_end: StepCallback | None
    callback_on_step_end_tensor_inputs: Sequence[str]


class SDXLSettings(Settings, total=False):
    """The same of `SDXLRequest`."""

    prompt_2: str | Sequence[str] | None
    negative_prompt_2: str | Sequence[str] | None
    original_size: tuple[int, int] | None
    crops_coords_top_left: tuple[int, int] | None
    target_size: tuple[int, int] | None
    negative_original_size: tuple[int, int] | None
    negative_crops_coords_top_left: tuple[int, int] | None
    negative_target_size: tuple[int, int] | None


class FluxSettings(Settings, total=False):
    """The same of `FluxRequest`."""

    prompt_2: str | Sequence[str] | None
    negative_prompt_2: str | Sequence[str] | None
    true_cfg_scale: float
    sigmas: Sequence[float] | None
    max_sequence_length: int | None


def takes_fields_of(request_class: type[GenerationRequest]) -> Callable[[Function], Function]:
    """Show every field of a request, with its default, in the signature of a method.

    Args:
        request_class: Whose fields the method takes: the prompt by place, the others by name.
    """

    def decorate(method: Function) -> Function:
        prompt, *others = fields(request_class)
        parameters = [
            Parameter("self", Parameter.POSITIONAL_OR_KEYWORD),
            Parameter(prompt.name, Parameter.POSITIONAL_OR_KEYWORD, annotation=prompt.type),
            *(
                Parameter(
                    each.name,
                    Parameter.KEYWORD_ONLY,
                    default=Parameter.empty if each.default is MISSING else each.default,
                    annotation=each.type,
                )
                for each in others
            ),
        ]
        returned = method.__annotations__["return"]
        method.__signature__ = Signature(  # type: ignore[attr-defined]
            parameters, return_annotation=returned
        )
        return method

    return decorate
