"""What the sizes of a signature decide of passes."""

from collections.abc import Sequence

from fastdeploy_diffusion.passes.contract import AnyPass
from fastdeploy_diffusion.runtime.program import Signature
from fastdeploy_diffusion.size_range import Size, SizeRange


def keep_usable(passes: Sequence[AnyPass], signature: Signature) -> tuple[AnyPass, ...]:
    """Drop the passes that need sizes which a signature leaves open; the batch is no size."""
    is_open = any(
        isinstance(size, SizeRange) for spec in signature.inputs for size in spec.shape[1:]
    )
    return tuple(each for each in passes if not (is_open and each.needs_known_sizes))


def count_pixels(signature: Signature) -> int:
    """Count the pixels of a picture's latents: 0 where sizes are open, or there is no picture."""
    inputs, outputs = (
        # The first: a denoiser takes smaller residuals, and a ControlNet a picture, besides.
        [_count(spec.shape[2:]) for spec in specs if len(spec.shape) == 4][:1]
        for specs in signature
    )
    if not inputs:
        return 0  # an output of four axes is no picture then: hidden states of all layers
    return min(inputs + outputs)  # an encoder returns the latents, the others take them


def _count(sizes: Sequence[Size]) -> int:
    height, width = sizes
    return height * width if isinstance(height, int) and isinstance(width, int) else 0
