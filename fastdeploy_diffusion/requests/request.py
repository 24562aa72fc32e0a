"""The request of a caller."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from fastdeploy_diffusion.config.introspection import list_arguments
from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.hints import find_hint
from fastdeploy_diffusion.pictures_in import GivenPicture, ImagePrompted, ResizeMode
from fastdeploy_diffusion.request_fields import FIELDS
from fastdeploy_diffusion.shown import show
from fastdeploy_diffusion.suggest import did_you_mean

OutputType = Literal["pil", "np", "latent"]
RequestT = TypeVar("RequestT", bound="GenerationRequest")
StepCallback = Callable[[Any, int, float, dict[str, Any]], dict[str, Any] | None]

OUTPUT_TYPES = ("pil", "np", "latent")
MASK_FIELDS = ("mask", "mask_blur", "padding_mask_crop", "overlay")
"""Fields of requests that give a mask, the first of them."""
PICTURE_FIELDS = ("image", "strength", "image_guidance_scale", "resize_mode", *MASK_FIELDS)
"""Fields of requests that give a picture, the first of them."""
_SYNONYMS = {
    **{each.flag.strip("-"): name for name, each in FIELDS.items() if each.flag},
    "images": "num_images_per_prompt",
    "num-images": "num_images_per_prompt",
    "callback": "callback_on_step_end",
}


def explains_fields(request_class: type[RequestT]) -> type[RequestT]:
    """Add the fields of a request to its docstring."""
    texts = {each.name: f"{FIELDS[each.name].text}." for each in fields(request_class)}
    request_class.__doc__ = list_arguments(request_class.__doc__ or "", texts)
    return request_class


@explains_fields
@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One request, with the argument names of diffusers; ``None`` is the default.

    With an ``image`` it is image to image, with a ``mask`` as well inpainting, and else text to
    image.
    """

    prompt: str | Sequence[str]
    negative_prompt: str | Sequence[str] | None = None
    height: int | None = None
    width: int | None = None
    num_inference_steps: int | None = None
    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None
    guidance_scale: float | None = None
    guidance_rescale: float = 0.0
    prompt_syntax: str | None = None
    prompt_chunks: int | None = None
    clip_skip: int | None = None
    num_images_per_prompt: int = 1
    seed: int | Sequence[int] | None = None
    scheduler: str | None = None
    eta: float = 0.0
    latents: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    image: GivenPicture | Sequence[GivenPicture] | None = field(default=None, repr=False)
    strength: float | None = None
    image_guidance_scale: float | None = None
    resize_mode: ResizeMode | None = None
    hires_scale: float | None = None
    hires_strength: float | None = None
    hires_upscaler: str | None = None
    mask: GivenPicture | Sequence[GivenPicture] | None = field(default=None, repr=False)
    mask_blur: int = 0
    padding_mask_crop: int | None = None
    overlay: bool = False
    control_image: GivenPicture | Sequence[GivenPicture] | None = field(default=None, repr=False)
    control_preprocess: str | Sequence[str | None] | None = None
    controlnet_conditioning_scale: float | Sequence[float] | None = None
    control_guidance_start: float | Sequence[float] | None = None
    control_guidance_end: float | Sequence[float] | None = None
    guess_mode: bool = False
    ip_adapter_image: ImagePrompted | None = field(default=None, repr=False)
    ip_adapter_scale: float | Sequence[float] | None = None
    output_type: OutputType = "pil"
    callback_on_step_end: StepCallback | None = None
    callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",)

    @classmethod
    def widen(cls, request: "GenerationRequest") -> Self:
        """Convert a request to this class, whose further fields are left out.

        Raises:
            RequestError: It is one of another family, with fields that this one does not have.
        """
        asked = {each.name for each in fields(request)}
        if not asked <= {each.name for each in fields(cls)}:
            raise RequestError(
                f"the request is a {type(request).__name__}, which asks for what this model does "
                "not have",
                allowed=", ".join(dict.fromkeys((GenerationRequest.__name__, cls.__name__))),
            )
        if isinstance(request, cls):
            return request
        return cls(**{name: getattr(request, name) for name in asked})


def make_request(
    prompt: Any,
    settings: dict[str, Any],
    request_class: type[GenerationRequest] = GenerationRequest,
) -> GenerationRequest:
    """Turn keyword arguments into a request of a class.

    Raises:
        RequestError: A keyword is unknown.
    """
    check_names(settings, [each.name for each in fields(request_class)], "argument")
    return request_class(prompt=prompt, **settings)


def check_names(given: Iterable[str], names: Sequence[str], kind: str) -> None:
    """Refuse names that are none of a request's fields.

    Args:
        names: Those that are allowed.
        kind: What bears the names given, for messages.

    Raises:
        RequestError: A name is unknown.
    """
    for name in given:
        if name not in names:
            hint = find_hint(name)
            missing = f": {hint.missing}" if hint and hint.missing else ""
            raise RequestError(
                f"unknown {kind} {show(name)}{missing}",
                allowed=", ".join(names),
                fix=hint.fix if hint else did_you_mean(name, names, _SYNONYMS),
            )
