"""The keyword arguments of ``text_to_image``, as type checkers and editors read them."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from inspect import Parameter, Signature, signature
from typing import Any, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.config.introspection import list_arguments
from fastdeploy_diffusion.request_fields import FIELDS
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
    scheduler: str | None
    eta: float
    latents: npt.NDArray[np.float32] | None
    prompt_syntax: str | None
    prompt_chunks: int | None
    clip_skip: int | None
    callback_on_step_end: StepCallback | None
    callback_on_step_end_tensor_inputs: Sequence[str]


class SDXLSettings(Settings, total=False):
    """Fields of `SDXLRequest`, likewise."""

    prompt_2: str | Sequence[str] | None
    negative_prompt_2: str | Sequence[str] | None
    original_size: tuple[int, int] | None
    crops_coords_top_left: tuple[int, int] | None
    target_size: tuple[int, int] | None
    negative_original_size: tuple[int, int] | None
    negative_crops_coords_top_left: tuple[int, int] | None
    negative_target_size: tuple[int, int] | None


class FluxSettings(Settings, total=False):
    """Fields of `FluxRequest`, likewise."""

    prompt_2: str | Sequence[str] | None
    negative_prompt_2: str | Sequence[str] | None
    true_cfg_scale: float
    sigmas: Sequence[float] | None
    max_sequence_length: int | None


def takes_fields_of(request_class: type[GenerationRequest]) -> Callable[[Function], Function]:
    """Show every field of a request in the signature and the docstring of a method.

    Args:
        request_class: Its fields become arguments: the prompt by position, the others by name.
    """

    def decorate(method: Function) -> Function:
        prompt, *others = signature(request_class).parameters.values()
        own = Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)
        method.__signature__ = Signature(  # type: ignore[attr-defined]
            [own, prompt.replace(kind=Parameter.POSITIONAL_OR_KEYWORD), *others],
            return_annotation=method.__annotations__["return"],
        )
        texts = {each.name: f"{FIELDS[each.name].text}." for each in fields(request_class)}
        method.__doc__ = list_arguments(method.__doc__ or "", texts)
        return method

    return decorate
