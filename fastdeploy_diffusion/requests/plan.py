"""The checked plan that is made of a request."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from fastdeploy_diffusion.config import RequestDefaults
from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.noise import check_seed, count_seeds, new_seed
from fastdeploy_diffusion.pictures_in import Size
from fastdeploy_diffusion.request_fields import FIELDS, PLAIN
from fastdeploy_diffusion.requests.checked_values import (
    check_choices,
    check_number,
    first,
    spread_texts,
)
from fastdeploy_diffusion.requests.control import CONTROL_FIELDS, Control, read_control
from fastdeploy_diffusion.requests.given_pictures import GivenPictures
from fastdeploy_diffusion.requests.given_plan import read_plan
from fastdeploy_diffusion.requests.hires import HIRES_FIELDS, Hires, read_hires
from fastdeploy_diffusion.requests.image_prompt import (
    IMAGE_PROMPT_FIELDS,
    ImagePrompt,
    read_image_prompt,
)
from fastdeploy_diffusion.requests.model_limits import ModelLimits
from fastdeploy_diffusion.requests.picture_plan import plan_pictures
from fastdeploy_diffusion.requests.prompt_syntax import warn_of_syntax
from fastdeploy_diffusion.requests.request import GenerationRequest
from fastdeploy_diffusion.runtime.value_range import LARGEST_VALUE, is_in_range
from fastdeploy_diffusion.shown import show

# A batch is planned picture by picture: no more than can be listed in a moment.
MOST_PICTURES = 1_000_000
_IMAGE_GUIDANCE = 1.5


@dataclass(frozen=True)
class GenerationPlan:
    """A request with every default filled in and every value checked.

    ``prompts``, ``negative_prompts`` and ``seeds`` have one entry for each picture.
    ``prompt_chunks`` is ``None`` where prompts are plain.

    Args:
        given: The pictures to start from; ``None`` for text to image.
        control: For ControlNets; ``None`` to draw without.
        image_prompt: For IP-Adapters; ``None`` where there are none.
        image_guidance_scale: Of a model that edits the given pictures; ``None`` for others.
        hires: The second pass over the enlarged picture, if there is one.
        second: The plan of the pass that goes on with what this one leaves, where there are two;
            of the same class.
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
    image_prompt: ImagePrompt | None
    image_guidance_scale: float | None = field(default=None, kw_only=True)
    hires: Hires | None = field(default=None, kw_only=True)
    second: Any = field(default=None, kw_only=True)

    @property
    def chunks(self) -> int:
        """Number of chunks of each text."""
        return self.prompt_chunks or 1

    @property
    def is_guided(self) -> bool:
        """Whether the denoiser runs on the negative prompt, too."""
        own = self.image_guidance_scale
        return self.guidance_scale > 1 and (own is None or own >= 1)

    @property
    def guidance(self) -> tuple[str, float]:
        """Name the guidance setting in use, with its value."""
        return "guidance_scale", self.guidance_scale

    @property
    def given_steps(self) -> int | None:
        """Number of steps, unless their timesteps or noise levels are given."""
        is_planned = self.request.timesteps is not None or self.request.sigmas is not None
        return None if is_planned else self.num_inference_steps

    @property
    def is_handed_over(self) -> bool:
        """Whether the first latents, or the given pictures, have their noise already."""
        return False

    @property
    def strength(self) -> float | None:
        """Share of the steps that change the given pictures, if there are any."""
        edits = self.image_guidance_scale is not None
        return self.given.strength if self.given and not edits else None

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
            **dict(zip(HIRES_FIELDS, self.hires or (None,) * 3, strict=True)),
        }
        for each in fields(request):
            if FIELDS[each.name].kind is not None and FIELDS[each.name].is_noted:
                name, default = each.name, each.default
                value = own[name] if name in own else getattr(self, name, getattr(request, name))
                # Lists have one entry a ControlNet or adapter, which the run's record holds.
                is_each = name in (*CONTROL_FIELDS, *IMAGE_PROMPT_FIELDS)
                is_recorded = is_each and isinstance(value, list | tuple)
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
        "negative_prompt", first(request.negative_prompt, defaults.negative_prompt, "")
    )
    if len(negatives) == 1:
        negatives = negatives * len(prompts)
    if len(negatives) != len(prompts):
        raise RequestError(
            f"{len(negatives)} negative prompts for {len(prompts)} prompts",
            allowed=f"one, or {len(prompts)}",
        )
    syntax = first(request.prompt_syntax, defaults.prompt_syntax, PLAIN)
    warn_of_syntax((*prompts, *negatives), syntax)
    count = check_number("num_images_per_prompt", request.num_images_per_prompt)
    _check_pictures(count * len(prompts))
    steps = check_number(
        "num_inference_steps",
        first(chosen.steps, request.num_inference_steps, defaults.num_inference_steps, own.steps),
    )
    given = plan_pictures(request, len(prompts), count, steps, limits)
    control = read_control(request, limits.control_scales)
    if given is None and control is not None:
        width, height = control.find_size(request.width, request.height, limits.multiple)
    elif given is None:
        width, height = request.width, request.height
    else:
        width, height = given.find_size(request.width, request.height, limits.multiple)
    width = first(width, defaults.width, limits.width)
    height = first(height, defaults.height, limits.height)
    height = _check_size("height", height, limits)
    width = _check_size("width", width, limits)
    if limits.sizes and (width, height) not in limits.sizes:
        raise RequestError(
            f"{width}x{height} is no size that the bundle was built for",
            allowed=", ".join(f"{each[0]}x{each[1]}" for each in limits.sizes),
            fix=f"make a bundle with it: fastdeploy-diffusion bundle --size {width}x{height},…",
        )
    if given is not None:
        given = given.fit(Size(width, height))
    if control is not None:
        control = control.fit(Size(width, height), given.find_crop() if given else None)
    pictures = count * len(prompts)
    latent_shape = limits.shape_latents(height, width)
    _check_latents(request.latents, (pictures, *latent_shape))
    plan = GenerationPlan(
        request=request,
        prompts=tuple(text for text in prompts for _ in range(count)),
        negative_prompts=tuple(text for text in negatives for _ in range(count)),
        seeds=_spread_seeds(first(request.seed, defaults.seed, None), pictures),
        height=height,
        width=width,
        latent_shape=latent_shape,
        num_inference_steps=steps,
        guidance_scale=check_number(
            "guidance_scale",
            first(
                request.guidance_scale,
                defaults.guidance_scale,
                own.choose_guidance(
                    has_picture=request.image is not None, has_mask=request.mask is not None
                ),
            ),
        ),
        prompt_syntax=syntax,
        prompt_chunks=_read_chunks(request.prompt_chunks, syntax),
        given=given,
        control=control,
        image_prompt=read_image_prompt(request, limits.ip_adapter_scales, limits.shown),
        image_guidance_scale=_read_image_guidance(request, limits),
        hires=read_hires(request, defaults),
    )
    if limits.ranges is not None:
        _, rows, columns = latent_shape
        guided = 2 if plan.image_guidance_scale is None else 3
        batch = pictures * (guided if plan.is_guided else 1)
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


def _read_image_guidance(request: GenerationRequest, limits: ModelLimits) -> float | None:
    given = request.image_guidance_scale
    if limits.edits is False and given is not None:
        raise RequestError(
            f"image_guidance_scale is {show(given)}, and {limits.model or 'the model'} does not "
            "edit pictures by instructions",
            allowed="an image_guidance_scale for InstructPix2Pix, of eight input channels",
            fix="leave it out; strength says how much of the picture changes",
        )
    if not limits.edits:
        return None
    usual = _IMAGE_GUIDANCE if given is None else given
    scale: float = check_number("image_guidance_scale", usual)
    return scale


def _check_pictures(pictures: int) -> None:
    if pictures > MOST_PICTURES:
        raise RequestError(
            f"{show(pictures)} pictures are asked for at once",
            allowed=f"1 to {MOST_PICTURES:,}, all prompts together, if they fit into memory",
            fix="ask for fewer at once, again and again",
        )


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
