"""Refuses fields of requests that have no effect without another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.shown import show

if TYPE_CHECKING:
    from fastdeploy_diffusion.requests.request import GenerationRequest


def require_before(request: GenerationRequest, names: Sequence[str]) -> None:
    """Refuse fields that have no effect without the first one of them.

    Raises:
        RequestError: The first is ``None``, and another differs from its default.
    """
    first, *others = names
    if getattr(request, first) is not None:
        return
    unset = {each.name: each.default for each in fields(request)}
    for name in others:
        value = getattr(request, name)
        if value is not None if unset[name] is None else value != unset[name]:
            raise RequestError(
                f"{name} is {show(value)}, and there is no {first}",
                allowed=f"{name} with {first}",
                fix=f"give {first}, or leave {name} out",
            )
