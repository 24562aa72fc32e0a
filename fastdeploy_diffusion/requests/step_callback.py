"""The callback of a request after each step: what it asks for, and what it returns."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.requests.latent_check import check_returned
from fastdeploy_diffusion.shown import show
from fastdeploy_diffusion.suggest import did_you_mean

CALLBACK_INPUTS = ("latents", "prompt_embeds", "negative_prompt_embeds")


def check_callback(callback: Any, names: Any) -> None:
    """Check a callback, and the names of the tensors that it is given.

    Raises:
        RequestError: It cannot be called, or a name is unknown.
    """
    if callback is not None and not callable(callback):
        raise RequestError(
            f"callback_on_step_end is {show(callback)}",
            allowed="a callable: callback(pipeline, step, timestep, tensors)",
        )
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise RequestError(
            f"callback_on_step_end_tensor_inputs is {show(names)}",
            allowed=f"a list of {', '.join(CALLBACK_INPUTS)}",
        )
    for name in names:
        if not isinstance(name, str) or name not in CALLBACK_INPUTS:
            raise RequestError(
                f"callback_on_step_end_tensor_inputs has {show(name)}",
                allowed=", ".join(CALLBACK_INPUTS),
                fix=did_you_mean(name, CALLBACK_INPUTS),
            )


def read_replacements(
    returned: Any, tensors: Mapping[str, npt.NDArray[np.float32] | None]
) -> dict[str, npt.NDArray[np.float32] | None]:
    """Read the tensors that a callback replaces, as float32.

    Args:
        tensors: Those that can be replaced, by name; ``None`` for one that the request lacks.

    Raises:
        RequestError: It is no mapping, or has an unknown name or an unsuitable array.
        NonFiniteError: An array has values that no picture has.
    """
    if returned is None:
        return {}
    allowed = f"None, or a dict with {', '.join(tensors)}"
    if not isinstance(returned, Mapping):
        raise RequestError(f"callback_on_step_end returned {show(returned)}", allowed=allowed)
    replacements = {}
    for name, value in returned.items():
        if not isinstance(name, str) or name not in tensors:
            raise RequestError(
                f"callback_on_step_end returned {show(name)}",
                allowed=allowed,
                fix=did_you_mean(name, tensors),
            )
        replacements[name] = _read_tensor(name, value, tensors[name])
    return replacements


def _read_tensor(
    name: str, value: Any, old: npt.NDArray[np.float32] | None
) -> npt.NDArray[np.float32] | None:
    if value is None and old is None:
        return None
    if old is None:
        raise RequestError(
            f"callback_on_step_end returned {name}, which this request does not have",
            fix=f"leave {name} out, or give a guidance_scale above 1",
        )
    is_real = isinstance(value, np.ndarray) and value.dtype.kind in "fiu"
    if not is_real or value.shape != old.shape:
        kind = (
            f"{value.dtype} {value.shape}"
            if isinstance(value, np.ndarray)
            else f"a {type(value).__name__}"
        )
        raise RequestError(
            f"callback_on_step_end returned {kind} for {name}",
            allowed=f"a numpy array of float32 {old.shape}",
        )
    with np.errstate(over="ignore"):  # they become infinite, and are refused
        tensor = np.asarray(value, np.float32)
    check_returned(name, tensor)
    return tensor
