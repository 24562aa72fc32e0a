"""The second pass of a request: its picture is enlarged, and drawn over at the larger size."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from fastdeploy_diffusion.config import RequestDefaults
from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.pictures_in import Size
from fastdeploy_diffusion.request_fields import HIRES_UPSCALERS
from fastdeploy_diffusion.requests.checked_values import check_number, first
from fastdeploy_diffusion.shown import show
from fastdeploy_diffusion.suggest import did_you_mean

if TYPE_CHECKING:
    from fastdeploy_diffusion.requests.plan import GenerationPlan
    from fastdeploy_diffusion.requests.request import GenerationRequest

HIRES_FIELDS = ("hires_scale", "hires_strength", "hires_upscaler")
"""Fields of requests with a second pass, the first of them."""
_STRENGTH = 0.4
_SYNONYMS = {
    "pixels": "lanczos",
    "latent_(bilinear)": "latent",
    "bilinear": "latent",
    "none": "lanczos",
}


class Hires(NamedTuple):
    """A second pass.

    Args:
        scale: Of both sides, above 1.
        strength: Share of the steps that change the enlarged picture.
        upscaler: How it is enlarged.
    """

    scale: float
    strength: float
    upscaler: str

    def enlarge(self, size: Size, multiple: int) -> Size:
        """Find the size of the second pass, cut to a multiple."""
        width, height = (int(side * self.scale) // multiple * multiple for side in size)
        return Size(width, height)


def read_hires(request: GenerationRequest, defaults: RequestDefaults) -> Hires | None:
    """Read the second pass of a request; ``None`` where there is none.

    Raises:
        RequestError: A value is not allowed, or has no effect.
    """
    given = {name: getattr(request, name) for name in HIRES_FIELDS}
    is_text = request.image is None
    scale = first(given["hires_scale"], defaults.hires_scale if is_text else None)
    scale = None if scale is None else check_number("hires_scale", scale)
    if scale in (None, 1):
        for name in HIRES_FIELDS[1:]:
            if given[name] is not None:
                raise RequestError(
                    f"{name} is {show(given[name])}, and there is no second pass",
                    allowed=f"{name} with a hires_scale above 1",
                    fix=f"give hires_scale, or leave {name} out",
                )
        return None
    if not is_text:
        raise RequestError(
            f"hires_scale is {scale:g}, and an image is given",
            allowed="a second pass of text_to_image",
            fix="give the image larger, or height, width and resize_mode='stretch'",
        )
    upscaler = first(given["hires_upscaler"], defaults.hires_upscaler, HIRES_UPSCALERS[0])
    if not isinstance(upscaler, str) or upscaler not in HIRES_UPSCALERS:
        raise RequestError(
            f"hires_upscaler is {show(upscaler)}",
            allowed=", ".join(HIRES_UPSCALERS),
            fix=did_you_mean(upscaler, HIRES_UPSCALERS, _SYNONYMS),
        )
    strength = first(given["hires_strength"], defaults.hires_strength, _STRENGTH)
    return Hires(scale, check_number("hires_strength", strength), upscaler)


def request_second(plan: GenerationPlan, multiple: int) -> GenerationRequest:
    """Make the request of a plan's second pass, over a picture that is drawn later.

    Raises:
        RequestError: The second pass would not be larger.
    """
    request, hires, own = plan.request, plan.hires, Size(plan.width, plan.height)
    assert hires is not None  # as the caller checks
    size = hires.enlarge(own, multiple)
    if min(size.width - own.width, size.height - own.height) < multiple:
        raise RequestError(
            f"hires_scale is {hires.scale:g}, and makes {size} of {own}",
            allowed=f"a scale that makes both sides larger by {multiple} at least",
            fix="give a larger hires_scale",
        )
    guidance = request.guidance_scale
    scales = plan.control and plan.control.scales
    return replace(
        request,
        height=size.height,
        width=size.width,
        num_inference_steps=plan.given_steps,
        # Of both passes; models that take none have 0.
        guidance_scale=plan.guidance_scale or guidance,
        controlnet_conditioning_scale=scales or request.controlnet_conditioning_scale,
        seed=plan.seeds,
        latents=None,
        image=Image.new("RGB", size),
        strength=hires.strength,
        hires_scale=1.0,
        hires_strength=None,
        hires_upscaler=None,
    )
