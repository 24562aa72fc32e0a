"""What a caller asks for, and the checked plan made of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from fastdeploy_diffusion.config import RequestDefaults
from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.noise import TorchGenerator, new_seed
from fastdeploy_diffusion.predictors.shape_ranges import ShapeRanges
from fastdeploy_diffusion.suggest import did_you_mean

OutputType = Literal["pil", "np", "latent"]
StepCallback = Callable[[Any, int, float, dict[str, Any]], dict[str, Any] | None]

OUTPUT_TYPES = ("pil", "np", "latent")
CALLBACK_INPUTS = ("latents", "prompt_embeds", "negative_prompt_embeds")


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One call of text-to-image, with the argument names of diffusers; ``None`` is the default.

    Args:
        prompt: One prompt, or several.
        negative_prompt: What not to draw: one text for all prompts, or one each.
        height: Height of the pictures in pixels.
        width: Width of the pictures in pixels.
        num_inference_steps: Denoising steps.
        guidance_scale: Weight of the prompt (Ho & Salimans, 2022); 1 or less turns guidance off.
        guidance_rescale: Rescaling of the guided prediction, 0 to 1 (Lin et al., 2023, sec. 3.4).
        num_images_per_prompt: Pictures of each prompt.
        seed: Picture ``i`` is drawn from ``seed + i``; or one seed for each picture.
        eta: Share of DDPM's noise in DDIM, 0 to 1.
        latents: Initial standard-normal latents, (pictures, 4, H/8, W/8) float32, in place of those
            drawn from the seed.
        clip_skip: Last layers of the text encoder to leave out.
        output_type: ``"pil"``, ``"np"`` ((B, H, W, 3) float32 in [0, 1]) or ``"latent"``.
        callback_on_step_end: Called as ``callback(pipeline, step, timestep, tensors)`` after every
            step; a mapping that it returns replaces tensors by name.
        callback_on_step_end_tensor_inputs: Which tensors it gets.
    """

    prompt: str | Sequence[str]
    negative_prompt: str | Sequence[str] | None = None
    height: int | None = None
    width: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    guidance_rescale: float = 0.0
    num_images_per_prompt: int = 1
    seed: int | Sequence[int] | None = None
    eta: float = 0.0
    latents: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    clip_skip: int | None = None
    output_type: OutputType = "pil"
    callback_on_step_end: StepCallback | None = None
    callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",)

    @classmethod
    def widen(cls, request: "GenerationRequest") -> Self:
        """Give a request as one of this class, whose further fields are left out.

        Raises:
            RequestError: It is one of another family, with fields that nobody would read.
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


@dataclass(frozen=True)
class ModelLimits:
    """What a model's configs say about requests.

    Args:
        height: Where nobody asks for another: the size it was trained at, in pixels, or the one
            that the ranges are tuned for.
        width: The same.
        multiple: Both sizes must be multiples of it.
        latent_channels: Channels of the latents.
        ranges: What one build serves; ``None`` if every size has a build of its own.
        steps: Where nobody asks for another number.
        guidance_scale: Where nobody asks for another.
    """

    height: int
    width: int
    multiple: int
    latent_channels: int
    ranges: ShapeRanges | None = None
    steps: int = 50
    guidance_scale: float = 7.5

    @property
    def allowed_sizes(self) -> str:
        """Which sizes in pixels can be drawn, in words."""
        return f"multiples of {self.multiple}"

    def shape_latents(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of one picture's latents; its sizes are in pixels."""
        return self.latent_channels, height // self.multiple, width // self.multiple


@dataclass(frozen=True)
class GenerationPlan:
    """A request with every default filled in and every value checked.

    ``prompts``, ``negative_prompts`` and ``seeds`` have one entry for each picture.
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

    @property
    def is_guided(self) -> bool:
        """Whether the denoiser runs on the negative prompt, too."""
        return self.guidance_scale > 1

    def settings(self, index: int) -> dict[str, Any]:
        """The keyword arguments of ``text_to_image`` that make picture ``index`` again."""
        request = self.request
        return {
            "prompt": self.prompts[index],
            "negative_prompt": self.negative_prompts[index] or None,
            "height": self.height,
            "width": self.width,
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            "guidance_rescale": request.guidance_rescale or None,
            "clip_skip": request.clip_skip,
            # Latents that the caller brought cannot be drawn again from a seed.
            "seed": self.seeds[index] if request.latents is None else None,
            "eta": request.eta or None,
        }


def plan_generation(
    request: GenerationRequest, defaults: RequestDefaults, limits: ModelLimits
) -> GenerationPlan:
    """Fill in defaults (request > config > model) and check every value.

    Raises:
        RequestError: A value is not allowed; the message says which are.
    """
    _check_choices(request)
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
    count = _check_whole("num_images_per_prompt", request.num_images_per_prompt)
    height = _check_size("height", _first(request.height, defaults.height, limits.height), limits)
    width = _check_size("width", _first(request.width, defaults.width, limits.width), limits)
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
        num_inference_steps=_check_whole(
            "num_inference_steps",
            _first(request.num_inference_steps, defaults.num_inference_steps, limits.steps),
        ),
        guidance_scale=_check_number(
            "guidance_scale",
            _first(request.guidance_scale, defaults.guidance_scale, limits.guidance_scale),
        ),
    )
    if limits.ranges is not None:
        _, rows, columns = latent_shape
        batch = pictures * (2 if plan.is_guided else 1)
        limits.ranges.check(rows=batch, height=rows, width=columns)
    return plan


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _check_choices(request: GenerationRequest) -> None:
    if request.output_type not in OUTPUT_TYPES:
        raise RequestError(
            f"output_type is {request.output_type!r}",
            allowed=", ".join(OUTPUT_TYPES),
            fix=did_you_mean(str(request.output_type), OUTPUT_TYPES, {"pt": "np", "numpy": "np"}),
        )
    for name in request.callback_on_step_end_tensor_inputs:
        if name not in CALLBACK_INPUTS:
            raise RequestError(
                f"callback_on_step_end_tensor_inputs has {name!r}",
                allowed=", ".join(CALLBACK_INPUTS),
                fix=did_you_mean(str(name), CALLBACK_INPUTS),
            )
    _check_number("guidance_rescale", request.guidance_rescale, largest=1.0)
    _check_number("eta", request.eta, largest=1.0)
    if request.clip_skip is not None:
        _check_whole("clip_skip", request.clip_skip, least=0)


def spread_texts(name: str, given: Any) -> tuple[str, ...]:
    """Give one text, or several, as a tuple.

    Raises:
        RequestError: It is something else.
    """
    texts = (given,) if isinstance(given, str) else given
    if (
        not isinstance(texts, Sequence)
        or not texts
        or not all(isinstance(text, str) for text in texts)
    ):
        raise RequestError(f"{name} is {given!r}", allowed="a string, or a list of strings")
    return tuple(texts)


def _spread_seeds(given: Any, pictures: int) -> tuple[int, ...]:
    if given is None:
        given = new_seed()
    if isinstance(given, Sequence) and not isinstance(given, str):
        if len(given) != pictures:
            raise RequestError(
                f"{len(given)} seeds for {pictures} pictures",
                allowed=f"one whole number, or {pictures} of them",
            )
        seeds = tuple(given)
    else:
        TorchGenerator(given)  # refuses what is no seed, before anything is added to it
        # The largest seed is followed by the smallest, as in 64-bit arithmetic.
        seeds = (given, *((int(given) + index) % 2**64 for index in range(1, pictures)))
    for seed in seeds:
        TorchGenerator(seed)
    return tuple(int(seed) for seed in seeds)


def _check_size(name: str, value: Any, limits: ModelLimits) -> int:
    size = _check_whole(name, value)
    if size % limits.multiple:
        lower = max(size - size % limits.multiple, limits.multiple)
        nearest = dict.fromkeys((lower, size - size % limits.multiple + limits.multiple))
        raise RequestError(
            f"{name} is {size}",
            allowed=limits.allowed_sizes,
            fix=f"{name}={' or '.join(map(str, nearest))}",
        )
    return size


def _check_whole(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise RequestError(f"{name} is {value!r}", allowed=f"a whole number of {least} or more")
    return int(value)


def _check_number(name: str, value: Any, largest: float = np.inf) -> float:
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not is_number or not np.isfinite(value) or not 0 <= value <= largest:
        up_to = f" to {largest:g}" if largest != np.inf else " or more"
        raise RequestError(f"{name} is {value!r}", allowed=f"a number of 0{up_to}")
    return float(value)


def _check_latents(latents: Any, shape: tuple[int, ...]) -> None:
    if latents is None:
        return
    if not isinstance(latents, np.ndarray) or latents.dtype != np.float32:
        kind = latents.dtype if isinstance(latents, np.ndarray) else type(latents).__name__
        raise RequestError(f"latents are of type {kind}", allowed="a numpy array of float32")
    if latents.shape != shape:
        raise RequestError(f"latents have the shape {latents.shape}", allowed=str(shape))
    if not np.isfinite(latents).all():
        raise RequestError("latents hold NaN or infinity", allowed="finite numbers")
