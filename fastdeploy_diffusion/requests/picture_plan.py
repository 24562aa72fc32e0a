"""The pictures and masks of a request, with the share of the steps that changes them."""

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.requests.checked_values import check_number, first
from fastdeploy_diffusion.requests.dependent_fields import require_before
from fastdeploy_diffusion.requests.given_masks import add_masks
from fastdeploy_diffusion.requests.given_pictures import GivenPictures, read_given
from fastdeploy_diffusion.requests.model_limits import ModelLimits
from fastdeploy_diffusion.requests.request import MASK_FIELDS, PICTURE_FIELDS, GenerationRequest
from fastdeploy_diffusion.shown import show


def plan_pictures(
    request: GenerationRequest, prompts: int, per_prompt: int, steps: int, limits: ModelLimits
) -> GivenPictures | None:
    """Read the pictures that a request starts from; ``None`` for text to image.

    Args:
        prompts: Their number.
        per_prompt: Pictures to draw of each.
        steps: Number of those of the scheduler.

    Raises:
        RequestError: A value is not allowed, or a picture cannot be read.
        ResourceError: A picture is too large.
    """
    for names in (PICTURE_FIELDS, MASK_FIELDS):
        require_before(request, names)
    if request.image is None:
        return None
    if request.latents is not None:
        raise RequestError(
            "latents are given, and an image, which makes its own", fix="leave one of them out"
        )
    own = limits.defaults
    if limits.edits and request.strength is not None:
        raise RequestError(
            f"strength is {show(request.strength)}, and has no effect on {limits.model}, which "
            "edits pictures by instructions",
            allowed="image_guidance_scale, which weighs the picture",
            fix="leave strength out",
        )
    usual = 1.0 if limits.edits else own.strength if request.mask is None else own.masked_strength
    strength = check_number("strength", first(request.strength, usual))
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
