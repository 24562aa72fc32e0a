"""The keyword arguments of ``text_to_image``, as type checkers and editors read them."""

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, TypedDict, TypeVar, cast

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.config.introspection import list_arguments
from fastdeploy_diffusion.pictures_in import GivenPicture, ImagePrompted, ResizeMode
from fastdeploy_diffusion.request_fields import FIELDS
from fastdeploy_diffusion.requests.request import (
    PICTURE_FIELDS,
    GenerationRequest,
    StepCallback,
)

Function = TypeVar("Function", bound=Callable[..., Any])


class Settings(TypedDict, total=False):
    """Fields of `GenerationRequest`, but for those that decide what is returned."""

    negative_prompt: str | Sequence[str] | None
    height: int | None
    width: int | None
    num_inference_steps: int | None
    timesteps: Sequence[float] | None
    sigmas: Sequence[float] | None
    guidance_scale: float | None
    guidance_rescale: float
    seed: int | Sequence[int] | None
    scheduler: str | None
    eta: float
    control_image: GivenPicture | Sequence[GivenPicture] | None
    control_preprocess: str | Sequence[str | None] | None
    controlnet_conditioning_scale: float | Sequence[float] | None
    control_guidance_start: float | Sequence[float] | None
    control_guidance_end: float | Sequence[float] | None
    guess_mode: bool
    ip_adapter_image: ImagePrompted | None
    ip_adapter_scale: float | Sequence[float] | None
    hires_scale: float | None
    hires_strength: float | None
    hires_upscaler: str | None
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
    denoising_start: float | None
    denoising_end: float | None
    aesthetic_score: float | None
    negative_aesthetic_score: float | None
    original_size: tuple[int, int] | None
    crops_coords_top_left: tuple[int, int] | None
    target_size: tuple[int, int] | None
    negative_original_size: tuple[int, int] | None
    negative_crops_coords_top_left: tuple[int, int] | None
    negative_target_size: tuple[int, int] | None


class PictureSettings(SDXLSettings, total=False):
    """Fields of requests with a picture, of all families: also those of `FluxRequest`."""

    strength: float | None
    image_guidance_scale: float | None
    resize_mode: ResizeMode | None
    true_cfg_scale: float
    max_sequence_length: int | None


class MaskSettings(PictureSettings, total=False):
    """Fields of requests with a mask, of all families."""

    mask_blur: int
    padding_mask_crop: int | None
    overlay: bool


class FluxSettings(Settings, total=False):
    """Fields of `FluxRequest`, likewise."""

    prompt_2: str | Sequence[str] | None
    negative_prompt_2: str | Sequence[str] | None
    true_cfg_scale: float
    max_sequence_length: int | None


def takes_fields_of(request_class: type[GenerationRequest]) -> Callable[[Function], Function]:
    """Show the fields of a request without pictures in a method's signature and docstring.

    Args:
        request_class: Its fields become arguments: the prompt by position, the others by name.
    """

    def decorate(method: Function) -> Function:
        return show_fields(method, request_class, ("prompt",), without=PICTURE_FIELDS)

    return decorate


def show_fields(
    method: Function,
    request_class: type[GenerationRequest],
    by_place: Sequence[str],
    without: Sequence[str] = (),
) -> Function:
    """Make a method that shows the fields of a request in its signature and its docstring.

    Args:
        by_place: Fields that are given by position, with the method's own defaults.
        without: Fields that it does not take.
    """

    @wraps(method)
    def shown(*arguments: Any, **settings: Any) -> Any:
        return method(*arguments, **settings)

    parameters = {
        name: each
        for name, each in signature(request_class).parameters.items()
        if name not in without
    }
    kind = Parameter.POSITIONAL_OR_KEYWORD
    first = [parameters.pop(name).replace(kind=kind, default=Parameter.empty) for name in by_place]
    shown.__signature__ = Signature(  # type: ignore[attr-defined]
        [Parameter("self", kind), *first, *parameters.values()],
        return_annotation=method.__annotations__["return"],
    )
    texts = {name: f"{FIELDS[name].text}." for name in (*by_place, *parameters)}
    shown.__doc__ = list_arguments(method.__doc__ or "", texts)
    return cast(Function, shown)
