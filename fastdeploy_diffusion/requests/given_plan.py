"""A plan of timesteps or noise levels that a caller chose."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.schedulers.custom_plan import read_numbers
from fastdeploy_diffusion.shown import show

# The longest training that a scheduler's config may have.
MOST_STEPS = 100_000


class GivenPlan(NamedTuple):
    """Timesteps or noise levels of a request; without either, the scheduler spaces its own.

    Args:
        steps: How many steps they make.
    """

    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None
    steps: int | None = None


def read_plan(timesteps: Any, sigmas: Any, steps: Any, *, is_flow: bool) -> GivenPlan:
    """Read the plan of a request.

    Args:
        timesteps: As given, or ``None``.
        sigmas: Likewise.
        steps: ``num_inference_steps``, as given.
        is_flow: Whether the noise levels of its models end before the last step.

    Raises:
        RequestError: They are no list of numbers, both are given, or they are of another number
            of steps than the one that is given.
    """
    given = {"timesteps": timesteps, "sigmas": sigmas}
    names = [name for name, values in given.items() if values is not None]
    if not names:
        return GivenPlan()
    if len(names) > 1:
        raise RequestError(
            "timesteps and sigmas are both given", allowed="one of them", fix="leave sigmas out"
        )
    name = names[0]
    allowed = f"descending numbers, at most {MOST_STEPS:,}"
    numbers = read_numbers(name, given[name], allowed).tolist()
    if len(numbers) > MOST_STEPS:
        raise RequestError(f"{name} are {len(numbers):,} numbers", allowed=allowed)
    # With noise levels but for a flow, the one after the last step is given, too.
    count = len(numbers) - (name == "sigmas" and not is_flow)
    if steps is not None and not (isinstance(steps, int | np.integer) and steps == count):
        raise RequestError(
            f"num_inference_steps is {show(steps)}, and there are {len(numbers)} {name}",
            fix="leave num_inference_steps out",
        )
    kept = [int(each) if each == int(each) else each for each in numbers]
    return GivenPlan(**{name: kept}, steps=max(count, 1))
