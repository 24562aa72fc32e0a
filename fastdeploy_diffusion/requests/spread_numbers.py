"""Numbers of a request for several networks of one kind: one for all, or one each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.request_fields import FIELDS
from fastdeploy_diffusion.shown import show

if TYPE_CHECKING:
    from fastdeploy_diffusion.requests.request import GenerationRequest


def spread_numbers(
    request: GenerationRequest, name: str, defaults: Sequence[float], kind: str
) -> tuple[float, ...]:
    """Give each network a number of a field.

    Args:
        defaults: Of each, where the request gives none.
        kind: Of the networks, in the plural: ``"ControlNets"``.

    Raises:
        RequestError: There are not as many numbers, or one is not allowed.
    """
    value, field, count = getattr(request, name), FIELDS[name], len(defaults)
    if value is None:
        return tuple(defaults)
    is_list = isinstance(value, list | tuple)
    values = list(value) if is_list else [value] * count
    if len(values) != count:
        raise RequestError(
            f"{name} has {len(values)} numbers for {count} {kind}",
            allowed=f"one number, or {count}",
        )
    for each in values:
        is_number = isinstance(each, int | float | np.integer | np.floating)
        if not is_number or isinstance(each, bool) or not field.fits(each):
            raise RequestError(f"{name} is {show(value)}", allowed=field.allowed)
    return tuple(float(each) for each in values)
