"""Selection of passes by the sizes of a signature."""

from collections.abc import Sequence

from fastdeploy_diffusion.passes.contract import AnyPass
from fastdeploy_diffusion.runtime.program import Signature
from fastdeploy_diffusion.size_range import SizeRange

# Measured at 16 x 16, where a UNet was slower by a sixth, and at 64 x 64, where one was faster by a
# third; single convolutions were faster from 32 tiles.
SMALLEST_FOR_WINOGRAD = 32 * 32


def keep_usable(passes: Sequence[AnyPass], signature: Signature) -> tuple[AnyPass, ...]:
    """Drop the passes that need sizes which a signature leaves open; the batch is no size."""
    is_open = any(
        isinstance(size, SizeRange) for spec in signature.inputs for size in spec.shape[1:]
    )
    return tuple(each for each in passes if not (is_open and each.needs_known_sizes))


def keep_paying(passes: Sequence[AnyPass], signature: Signature) -> tuple[AnyPass, ...]:
    """Drop the passes that cost more than they save on latents as small as a signature's."""
    pixels: list[int] = []
    for specs in signature:  # what an encoder returns are the latents
        pixels += [
            height * width
            for *_, height, width in (spec.shape for spec in specs if len(spec.shape) == 4)
            if isinstance(height, int) and isinstance(width, int)
        ][:1]  # a denoiser takes smaller residuals, and a ControlNet a picture, besides
    return tuple(each for each in passes if all(size >= each.pays_from for size in pixels))
