"""The sizes that SDXL is conditioned on beside the texts (Podell et al., 2023, section 2.2)."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.request_fields import FIELDS
from fastdeploy_diffusion.shown import show

SizeNumbers = tuple[int, ...]
"""Height and width of the original, top and left of the crop, height and width of the target."""

_PARTS = ("original_size", "crops_coords_top_left", "target_size")
_NEGATIVE_PARTS = tuple(f"negative_{name}" for name in _PARTS)
SIZE_CONDITIONS = (*_PARTS, *_NEGATIVE_PARTS)


def read_size_numbers(
    given: Mapping[str, Any], size: tuple[int, int], *, is_guided: bool
) -> tuple[SizeNumbers, SizeNumbers]:
    """Check a request's size conditioning, and fill in defaults.

    Args:
        given: By the names of ``SIZE_CONDITIONS``; ``None`` where left out.
        size: Height and width of the picture.
        is_guided: Whether there is a negative prompt to condition.

    Returns:
        The sizes that prompt and negative prompt are conditioned on.

    Raises:
        RequestError: A value is no pair of whole numbers, or one for the negative prompt has no
            effect without another.

    Warns:
        UserWarning: There is no negative prompt to condition.
    """
    pairs = {name: _read_pair(name, pair) for name, pair in given.items() if pair is not None}
    original, target = (pairs.get(name, size) for name in ("original_size", "target_size"))
    sizes = (*original, *pairs.get("crops_coords_top_left", (0, 0)), *target)
    negative = [name for name in _NEGATIVE_PARTS if name in pairs]
    if not negative:
        return sizes, sizes
    wanted = ("negative_original_size", "negative_target_size")
    if missing := [name for name in wanted if name not in pairs]:
        raise RequestError(
            f"{' and '.join(negative)} given without {' and '.join(missing)}",
            allowed=f"{' and '.join(wanted)} together, or none of them",
            fix=f"give {' and '.join(missing)}, too",
        )
    if not is_guided:
        message = f"{', '.join(negative)} have no effect with a guidance_scale of 1 or less"
        warnings.warn(message, UserWarning, stacklevel=5)
    crop = pairs.get("negative_crops_coords_top_left", (0, 0))
    return sizes, (*pairs[wanted[0]], *crop, *pairs[wanted[1]])


def _read_pair(name: str, given: Any) -> tuple[int, int]:
    field = FIELDS[name]
    is_list = isinstance(given, Sequence) and not isinstance(given, str | bytes)
    is_pair = is_list and len(given) == 2
    if not is_pair or not all(_is_whole(each) and field.fits(each) for each in given):
        first, second = ("top", "left") if field.least == 0 else ("height", "width")
        raise RequestError(
            f"{name} is {show(given)}",
            allowed=f"({first}, {second}), two whole numbers of pixels from {field.least} to "
            f"{field.most}",
        )
    return int(given[0]), int(given[1])


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
