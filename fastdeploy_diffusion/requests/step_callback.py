"""Reads the tensors that a callback returns after a step."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.requests.latent_check import check_returned
from fastdeploy_diffusion.shown import show
from fastdeploy_diffusion.suggest import did_you_mean


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
