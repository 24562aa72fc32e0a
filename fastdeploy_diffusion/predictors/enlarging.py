"""Enlarging of what a first pass has drawn, for a second one."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastdeploy_diffusion.pictures_in import Size, resize

FloatArray = npt.NDArray[np.float32]


def enlarge_pictures(pictures: Sequence[Image.Image], size: Size) -> tuple[Image.Image, ...]:
    """Enlarge pictures with Lanczos' filter, as diffusers resizes given ones."""
    return tuple(resize(each, size, "stretch") for each in pictures)


def enlarge_latents(latents: FloatArray, height: int, width: int) -> FloatArray:
    """Enlarge (B, C, H, W) latents bilinearly, as torch's ``interpolate`` does.

    Pixels stand for squares, not for points (``align_corners=False``).
    """
    for axis, size in ((2, height), (3, width)):
        latents = _stretch(latents, axis, size)
    return latents


def _stretch(values: FloatArray, axis: int, size: int) -> FloatArray:
    old = values.shape[axis]
    places = np.clip((np.arange(size, dtype=np.float32) + 0.5) * (old / size) - 0.5, 0, old - 1)
    low = np.floor(places).astype(np.int64)
    shape = [1] * values.ndim
    shape[axis] = size
    share = (places - low).astype(np.float32).reshape(shape)
    below, above = (values.take(each, axis) for each in (low, np.minimum(low + 1, old - 1)))
    mixed: FloatArray = below * (1 - share) + above * share
    return mixed
