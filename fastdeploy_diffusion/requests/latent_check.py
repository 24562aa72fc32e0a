"""Refusal of latents that no picture has, alike on every engine, with the likely cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.errors import NonFiniteError
from fastdeploy_diffusion.runtime.value_range import LARGEST_VALUE, is_in_range

if TYPE_CHECKING:
    from fastdeploy_diffusion.requests.plan import GenerationPlan

# Above it guidance is likely to blame.
_USUAL_GUIDANCE = 20
_ALLOWED = f"values of up to {LARGEST_VALUE:,.0f}, which no picture comes near"


def check_latents(
    latents: npt.NDArray[np.float32], plan: GenerationPlan, done: int, total: int
) -> None:
    """Refuse latents that no picture has.

    Raises:
        NonFiniteError: The message names the settings that are likely to blame.
    """
    if is_in_range(latents):
        return
    raise NonFiniteError(
        f"the latents hold {_describe(latents)} after {done} of {total} steps",
        allowed=_ALLOWED,
        fix="; or ".join(_list_suspects(plan)),
    )


def check_returned(name: str, tensor: npt.NDArray[np.generic]) -> None:
    """Refuse a tensor that a callback returned with values that no picture has.

    Raises:
        NonFiniteError: The message names the tensor.
    """
    if not is_in_range(tensor):
        raise NonFiniteError(
            f"callback_on_step_end returned {name!r} with {_describe(tensor)}",
            allowed=_ALLOWED,
            fix="correct the callback",
        )


def _describe(array: npt.NDArray[np.generic]) -> str:
    largest = np.abs(array).max()
    return f"values of up to {largest:.1e}" if np.isfinite(largest) else "NaN or infinity"


def _list_suspects(plan: GenerationPlan) -> list[str]:
    name, guidance = plan.guidance
    suspects = {
        f"lower {name}, which is {guidance:g}: 1 to {_USUAL_GUIDANCE} is usual": (
            guidance > _USUAL_GUIDANCE
        ),
        "see what callback_on_step_end returns": plan.request.callback_on_step_end is not None,
        "give latents of a standard normal distribution": plan.request.latents is not None,
    }
    return [fix for fix, is_likely in suspects.items() if is_likely] or [
        "use another scheduler or more steps; if that changes nothing, the weights may be damaged"
    ]
