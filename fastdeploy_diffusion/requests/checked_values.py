"""Checks of the values of a request that need no model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.pictures_in import RESIZE_MODES
from fastdeploy_diffusion.request_fields import FIELDS, PROMPT_SYNTAXES
from fastdeploy_diffusion.requests.request import OUTPUT_TYPES, RequestT
from fastdeploy_diffusion.requests.step_callback import check_callback
from fastdeploy_diffusion.scheduler_names import (
    ALLOWED,
    SAMPLERS,
    SCHEDULERS,
    find_nearest_sampler,
    find_sampler,
)
from fastdeploy_diffusion.shown import show
from fastdeploy_diffusion.suggest import did_you_mean

_LARGEST = 2**63 - 1


def first(*values: Any) -> Any:
    """Take the first value that is given."""
    return next((value for value in values if value is not None), None)


def check_choices(request: RequestT) -> RequestT:
    """Check the fields that need no model; numbers become Python's own, which metadata can hold.

    Raises:
        RequestError: A value is not allowed.
    """
    if not isinstance(request.output_type, str) or request.output_type not in OUTPUT_TYPES:
        raise RequestError(
            f"output_type is {show(request.output_type)}",
            allowed=", ".join(OUTPUT_TYPES),
            fix=did_you_mean(request.output_type, OUTPUT_TYPES, {"pt": "np", "numpy": "np"}),
        )
    syntax = request.prompt_syntax
    if syntax is not None and (not isinstance(syntax, str) or syntax not in PROMPT_SYNTAXES):
        raise RequestError(
            f"prompt_syntax is {show(syntax)}",
            allowed=", ".join(PROMPT_SYNTAXES),
            fix=did_you_mean(syntax, PROMPT_SYNTAXES, {"a1111": "weighted"}),
        )
    check_callback(request.callback_on_step_end, request.callback_on_step_end_tensor_inputs)
    mode = request.resize_mode
    if mode is not None and (not isinstance(mode, str) or mode not in RESIZE_MODES):
        raise RequestError(
            f"resize_mode is {show(mode)}",
            allowed=", ".join(RESIZE_MODES),
            fix=did_you_mean(mode, RESIZE_MODES, {"fill": "pad", "resize": "stretch"}),
        )
    if not isinstance(request.overlay, bool):
        raise RequestError(f"overlay is {show(request.overlay)}", allowed="true, false")
    scheduler = request.scheduler
    padding = request.padding_mask_crop
    clip_skip = request.clip_skip
    return replace(
        request,
        guidance_rescale=check_number("guidance_rescale", request.guidance_rescale),
        scheduler=None if scheduler is None else _find_scheduler(scheduler),
        eta=check_number("eta", request.eta),
        mask_blur=check_number("mask_blur", request.mask_blur),
        padding_mask_crop=None if padding is None else check_number("padding_mask_crop", padding),
        clip_skip=None if clip_skip is None else check_number("clip_skip", clip_skip),
    )


def _find_scheduler(given: Any) -> str:
    """Look up a scheduler or sampler by the names of this and other tools."""
    found = find_sampler(given) if isinstance(given, str) else None
    if found is None:
        nearest = find_nearest_sampler(given) if isinstance(given, str) else None
        names = *SCHEDULERS, *SAMPLERS
        raise RequestError(
            f"scheduler is {show(given)}",
            allowed=ALLOWED,
            fix=f"scheduler={nearest!r} is the nearest there is"
            if nearest
            else did_you_mean(given, names),
        )
    return found


def spread_texts(name: str, given: Any) -> tuple[str, ...]:
    """Turn one text, or several, into a tuple.

    Raises:
        RequestError: It is something else.
    """
    texts = (given,) if isinstance(given, str) else given
    if (
        not isinstance(texts, Sequence)
        or not texts
        or not all(isinstance(text, str) for text in texts)
    ):
        raise RequestError(f"{name} is {show(given)}", allowed="a string, or a list of strings")
    return tuple(texts)


def check_number(name: str, value: Any) -> Any:
    """Convert an allowed number to Python's own type, which metadata can hold.

    Raises:
        RequestError: It is not a number, or not in the field's range.
    """
    field = FIELDS[name]
    kinds = (int, np.integer) if field.kind is not float else (int, float, np.integer, np.floating)
    if not isinstance(value, kinds) or isinstance(value, bool) or not field.fits(value):
        raise RequestError(f"{name} is {show(value)}", allowed=field.allowed)
    if value > _LARGEST:
        raise RequestError(f"{name} is {show(value)}", allowed=f"{field.least} to {_LARGEST}")
    return float(value) if field.kind is float else int(value)
