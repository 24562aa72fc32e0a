"""The request of a caller, and the checked plan made of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from fastdeploy_diffusion.config import RequestDefaults
from fastdeploy_diffusion.config.introspection import list_arguments
from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.families.family import Defaults
from fastdeploy_diffusion.hints import find_hint
from fastdeploy_diffusion.noise import check_seed, count_seeds, new_seed
from fastdeploy_diffusion.pictures_in import RESIZE_MODES, GivenPicture, ResizeMode, Size
from fastdeploy_diffusion.request_fields import FIELDS, PLAIN, PROMPT_SYNTAXES
from fastdeploy_diffusion.requests.control import CONTROL_FIELDS, Control, read_control
from fastdeploy_diffusion.requests.dependent_fields import require_before
from fastdeploy_diffusion.requests.given_masks import add_masks
from fastdeploy_diffusion.requests.given_pictures import GivenPictures, read_given
from fastdeploy_diffusion.requests.given_plan import read_plan
from fastdeploy_diffusion.requests.model_limits import ModelLimits
from fastdeploy_diffusion.requests.prompt_syntax import warn_of_syntax
from fastdeploy_diffusion.requests.step_callback import check_callback
from fastdeploy_diffusion.runtime.value_range import LARGEST_VALUE, is_in_range
from fastdeploy_diffusion.scheduler_names import (
    ALLOWED,
    SAMPLERS,
    SCHEDULERS,
    find_nearest_sampler,
    find_sampler,
)
from fastdeploy_diffusion.shown import show
from fastdeploy_diffusion.suggest import did_you_mean

OutputType = Literal["pil", "np", "latent"]
RequestT = TypeVar("RequestT", bound="GenerationRequest")
StepCallback = Callable[[Any, int, float, dict[str, Any]], dict[str, Any] | None]

OUTPUT_TYPES = ("pil", "np", "latent")
# A batch is planned picture by picture: no more than can be listed in a moment.
MOST_PICTURES = 1_000_000
MASK_FIELDS = ("mask", "mask_blur", "padding_mask_crop", "overlay")
"""Fields of requests that give a mask, the first of them."""
PICTURE_FIELDS = ("image", "strength", "resize_mode", *MASK_FIELDS)
"""Fields of requests that give a picture, the first of them."""
_LARGEST = 2**63 - 1
_SYNONYMS = {
    "num-images": "num_images_per_prompt",
    "steps": "num_inference_steps",
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
    resize_mode: ResizeMode | None = None
    mask: GivenPicture | Sequence[GivenPicture] | None = field(default=None, repr=False)
    mask_blur: int = 0
    padding_mask_crop: int | None = None
    overlay: bool = False
    control_image: GivenPicture | Sequence[GivenPicture] | None = field(default=None, repr=False)
    controlnet_conditioning_scale: float | Sequence[float] | None = None
    control_guidance_start: float | Sequence[float] | None = None
    control_guidance_end: float | Sequence[float] | None = None
    guess_mode: bool = False
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
    names = [each.name for each in fields(request_class)]
    for name in settings:
        if name not in names:
            hint = find_hint(name)
            missing = f": {hint.missing}" if hint and hint.missing else ""
            raise RequestError(
                f"unknown argument {name!r}{missing}",
                allowed=", ".join(names),
                fix=hint.fix if hint else did_you_mean(name, names, _SYNONYMS),
            )
    return request_class(prompt=prompt, **settings)


@dataclass(frozen=True)
class GenerationPlan:
    """A request with every default filled in and every value checked.

    ``prompts``, ``negative_prompts`` and ``seeds`` have one entry for each picture.
    ``prompt_chunks`` is ``None`` where prompts are plain.

    Args:
        given: The pictures to start from; ``None`` for text to image.
        control: For ControlNets; ``None`` to draw without.
    """

    request: GenerationRequest
    prompts: tuple[str, ...]
    negative_prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    height: int
    width: int
    latent_shape: tuple[int, ...]
    num_inference_steps: int
    guidance_scale: float
    prompt_syntax: str
    prompt_chunks: int | None
    given: GivenPictures | None
    control: Control | None

    @property
    def chunks(self) -> int:
        """Number of chunks of each text."""
        return self.prompt_chunks or 1

    @property
    def is_guided(self) -> bool:
        """Whether the denoiser runs on the negative prompt, too."""
        return self.guidance_scale > 1

    @property
    def guidance(self) -> tuple[str, float]:
        """Name the guidance setting in use, with its value."""
        return "guidance_scale", self.guidance_scale

    @property
    def strength(self) -> float | None:
        """Share of the steps that change the given pictures, if there are any."""
        return self.given.strength if self.given else None

    @property
    def skipped_steps(self) -> int:
        """Number of first steps that are left out, because a given picture stands for them."""
        return self.num_inference_steps - self.given.steps if self.given else 0

    def settings(self, index: int) -> dict[str, Any]:
        """The keyword arguments that make picture ``index`` again, of the same given picture."""
        request, found = self.request, {}
        own = {
            "prompt": self.prompts[index],
            "negative_prompt": self.negative_prompts[index] or None,
            # Latents that the caller brought cannot be drawn again from a seed.
            "seed": self.seeds[index] if request.latents is None else None,
        }
        for each in fields(request):
            if FIELDS[each.name].kind is not None and FIELDS[each.name].is_noted:
                name, default = each.name, each.default
                value = own[name] if name in own else getattr(self, name, getattr(request, name))
                # Lists of control have one entry a ControlNet, which the run's record holds.
                is_recorded = name in CONTROL_FIELDS and isinstance(value, list | tuple)
                found[name] = None if is_recorded or value == default else value
        return found


def plan_generation(
    request: GenerationRequest, defaults: RequestDefaults, limits: ModelLimits
) -> GenerationPlan:
    """Fill in defaults (request > config > model) and check every value.

    Raises:
        RequestError: A value is not allowed; the message says which are.

    Warns:
        PromptSyntaxWarning: A prompt has syntax of other tools.
    """
    request, own = check_choices(request), limits.defaults
    chosen = read_plan(
        request.timesteps, request.sigmas, request.num_inference_steps, is_flow=limits.is_packed
    )
    request = replace(request, timesteps=chosen.timesteps, sigmas=chosen.sigmas)
    prompts = spread_texts("prompt", request.prompt)
    negatives = spread_texts(
        "negative_prompt", _first(request.negative_prompt, defaults.negative_prompt, "")
    )
    if len(negatives) == 1:
        negatives = negatives * len(prompts)
    if len(negatives) != len(prompts):
        raise RequestError(
            f"{len(negatives)} negative prompts for {len(prompts)} prompts",
            allowed=f"one, or {len(prompts)}",
        )
    syntax = _first(request.prompt_syntax, defaults.prompt_syntax, PLAIN)
    warn_of_syntax((*prompts, *negatives), syntax)
    count = check_number("num_images_per_prompt", request.num_images_per_prompt)
    _check_pictures(count * len(prompts))
    steps = check_number(
        "num_inference_steps",
        _first(chosen.steps, request.num_inference_steps, defaults.num_inference_steps, own.steps),
    )
    given = _read_given(request, len(prompts), count, steps, own)
    control = read_control(request, limits.control_scales)
    if given is None and control is not None:
        width, height = control.find_size(request.width, request.height, limits.multiple)
    elif given is None:
        width, height = request.width, request.height
    else:
        width, height = given.find_size(request.width, request.height, limits.multiple)
    width = _first(width, defaults.width, limits.width)
    height = _first(height, defaults.height, limits.height)
    height = _check_size("height", height, limits)
    width = _check_size("width", width, limits)
    if limits.sizes and (width, height) not in limits.sizes:
        raise RequestError(
            f"{width}x{height} is no size that the bundle was built for",
            allowed=", ".join(f"{each[0]}x{each[1]}" for each in limits.sizes),
            fix=f"make a bundle with it: fastdeploy-diffusion bundle --size {width}x{height},…",
        )
    pictures = count * len(prompts)
    latent_shape = limits.shape_latents(height, width)
    _check_latents(request.latents, (pictures, *latent_shape))
    plan = GenerationPlan(
        request=request,
        prompts=tuple(text for text in prompts for _ in range(count)),
        negative_prompts=tuple(text for text in negatives for _ in range(count)),
        seeds=_spread_seeds(_first(request.seed, defaults.seed, None), pictures),
        height=height,
        width=width,
        latent_shape=latent_shape,
        num_inference_steps=steps,
        guidance_scale=check_number(
            "guidance_scale",
            _first(
                request.guidance_scale,
                defaults.guidance_scale,
                own.choose_guidance(
                    has_picture=request.image is not None, has_mask=request.mask is not None
                ),
            ),
        ),
        prompt_syntax=syntax,
        prompt_chunks=_read_chunks(request.prompt_chunks, syntax),
        given=given.fit(Size(width, height)) if given else None,
        control=control.fit(Size(width, height)) if control else None,
    )
    if limits.ranges is not None:
        _, rows, columns = latent_shape
        batch = pictures * (2 if plan.is_guided else 1)
        limits.ranges.check(rows=batch, height=rows, width=columns)
    return plan


def _read_chunks(given: Any, syntax: str) -> int | None:
    if syntax != PLAIN:
        return 1 if given is None else int(check_number("prompt_chunks", given))
    if given is not None:
        raise RequestError(
            f"prompt_chunks is {show(given)}, and prompts are plain, which are one chunk each",
            fix="prompt_syntax='weighted', or leave prompt_chunks out",
        )
    return None


def _read_given(
    request: GenerationRequest, prompts: int, per_prompt: int, steps: int, own: Defaults
) -> GivenPictures | None:
    for names in (PICTURE_FIELDS, MASK_FIELDS):
        require_before(request, names)
    if request.image is None:
        return None
    if request.latents is not None:
        raise RequestError(
            "latents are given, and an image, which makes its own", fix="leave one of them out"
        )
    usual = own.strength if request.mask is None else own.masked_strength
    strength = check_number("strength", _first(request.strength, usual))
    taken = own.count_steps(steps, strength)
    if not taken:
        raise RequestError(
            f"strength is {strength:g}: of {steps} steps, none is left to change the image",
            allowed=f"{1 / steps:.3g} to 1",
            fix="give a larger strength, or more num_inference_steps",
        )
    given = read_given(request.image, prompts, per_prompt, strength, taken, request.resize_mode)
    if request.mask is None:
        return given
    padding = request.padding_mask_crop
    return add_masks(given, request.mask, request.mask_blur, padding, request.overlay)


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def check_choices(request: RequestT) -> RequestT:
    """Check the fields that need no model; numbers become Python's own, which metadata can hold.

    Raises:
        RequestError: A value is not allowed.
    """
    if not isinstance(request.output_type, str) or request.output_type not in OUTPUT_TYPES:
        raise RequestError(
            f"output_type is {show(request.output_type)}",
            allowed=", ".join(OUTPUT_TYPES),
            fix=did_you_mean(request.output_type, OUTPUT_TYPES, {"pt": "np", "numpy": "np"}),
        )
    syntax = request.prompt_syntax
    if syntax is not None and (not isinstance(syntax, str) or syntax not in PROMPT_SYNTAXES):
        raise RequestError(
            f"prompt_syntax is {show(syntax)}",
            allowed=", ".join(PROMPT_SYNTAXES),
            fix=did_you_mean(syntax, PROMPT_SYNTAXES, {"a1111": "weighted"}),
        )
    check_callback(request.callback_on_step_end, request.callback_on_step_end_tensor_inputs)
    mode = request.resize_mode
    if mode is not None and (not isinstance(mode, str) or mode not in RESIZE_MODES):
        raise RequestError(
            f"resize_mode is {show(mode)}",
            allowed=", ".join(RESIZE_MODES),
            fix=did_you_mean(mode, RESIZE_MODES, {"fill": "pad", "resize": "stretch"}),
        )
    if not isinstance(request.overlay, bool):
        raise RequestError(f"overlay is {show(request.overlay)}", allowed="true, false")
    scheduler = request.scheduler
    padding = request.padding_mask_crop
    clip_skip = request.clip_skip
    return replace(
        request,
        guidance_rescale=check_number("guidance_rescale", request.guidance_rescale),
        scheduler=None if scheduler is None else _find_scheduler(scheduler),
        eta=check_number("eta", request.eta),
        mask_blur=check_number("mask_blur", request.mask_blur),
        padding_mask_crop=None if padding is None else check_number("padding_mask_crop", padding),
        clip_skip=None if clip_skip is None else check_number("clip_skip", clip_skip),
    )


def _find_scheduler(given: Any) -> str:
    """Look up a scheduler or sampler by the names of this and other tools."""
    found = find_sampler(given) if isinstance(given, str) else None
    if found is None:
        nearest = find_nearest_sampler(given) if isinstance(given, str) else None
        names = *SCHEDULERS, *SAMPLERS
        raise RequestError(
            f"scheduler is {show(given)}",
            allowed=ALLOWED,
            fix=f"scheduler={nearest!r} is the nearest there is"
            if nearest
            else did_you_mean(given, names),
        )
    return found


def _check_pictures(pictures: int) -> None:
    if pictures > MOST_PICTURES:
        raise RequestError(
            f"{show(pictures)} pictures are asked for at once",
            allowed=f"1 to {MOST_PICTURES:,}, all prompts together, if they fit into memory",
            fix="ask for fewer at once, again and again",
        )


def spread_texts(name: str, given: Any) -> tuple[str, ...]:
    """Turn one text, or several, into a tuple.

    Raises:
        RequestError: It is something else.
    """
    texts = (given,) if isinstance(given, str) else given
    if (
        not isinstance(texts, Sequence)
        or not texts
        or not all(isinstance(text, str) for text in texts)
    ):
        raise RequestError(f"{name} is {show(given)}", allowed="a string, or a list of strings")
    return tuple(texts)


def _spread_seeds(given: Any, pictures: int) -> tuple[int, ...]:
    if given is None:
        given = new_seed()
    if isinstance(given, np.ndarray) and given.ndim == 1:
        given = given.tolist()
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        return count_seeds(check_seed(given), 0, pictures)
    if len(given) != pictures:
        raise RequestError(
            f"{len(given)} seeds for {pictures} pictures",
            allowed=f"one whole number, or {pictures} of them",
        )
    return tuple(check_seed(seed) for seed in given)


def _check_size(name: str, value: Any, limits: ModelLimits) -> int:
    size: int = check_number(name, value)
    if size % limits.multiple:
        lower = max(size - size % limits.multiple, limits.multiple)
        nearest = dict.fromkeys((lower, size - size % limits.multiple + limits.multiple))
        raise RequestError(
            f"{name} is {size}",
            allowed=limits.allowed_sizes,
            fix=f"{name}={' or '.join(map(str, nearest))}",
        )
    return size


def check_number(name: str, value: Any) -> Any:
    """Convert an allowed number to Python's own type, which metadata can hold.

    Raises:
        RequestError: It is not a number, or not in the field's range.
    """
    field = FIELDS[name]
    kinds = (int, np.integer) if field.kind is not float else (int, float, np.integer, np.floating)
    if not isinstance(value, kinds) or isinstance(value, bool) or not field.fits(value):
        raise RequestError(f"{name} is {show(value)}", allowed=field.allowed)
    if value > _LARGEST:
        raise RequestError(f"{name} is {show(value)}", allowed=f"{field.least} to {_LARGEST}")
    return float(value) if field.kind is float else int(value)


def _check_latents(latents: Any, shape: tuple[int, ...]) -> None:
    if latents is None:
        return
    if not isinstance(latents, np.ndarray) or latents.dtype != np.float32:
        kind = latents.dtype if isinstance(latents, np.ndarray) else type(latents).__name__
        raise RequestError(f"latents are of type {kind}", allowed="a numpy array of float32")
    if latents.shape != shape:
        raise RequestError(f"latents have the shape {latents.shape}", allowed=str(shape))
    if not is_in_range(latents):
        raise RequestError(
            "latents hold NaN, infinity or values that no picture has",
            allowed=f"numbers of -{LARGEST_VALUE:,.0f} to {LARGEST_VALUE:,.0f}",
            fix="give numbers of a standard normal distribution",
        )
