"""Growth of cost with one varied setting: size, batch, steps or threads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fastdeploy_diffusion.benchmark.case import Work
from fastdeploy_diffusion.benchmark.row import Row
from fastdeploy_diffusion.benchmark.summary import summarise

# How a piece of work is measured along each sweep, and in what words.
SWEEPS: Mapping[str, tuple[str, Callable[[Work], int]]] = {
    "size": ("pixels", lambda work: work.width * work.height),
    "batch": ("pictures at once", lambda work: work.batch),
    "steps": ("steps", lambda work: work.steps),
    "threads": ("threads", lambda work: work.threads),
}
_POINTS = 4
_QUARTERS = (2, 3, 4, 6)  # of the sides
_GRID = 64  # pixels; what every latent diffusion model can draw


@dataclass(frozen=True)
class Growth:
    """Growth of one case's cost.

    Args:
        places: What was changed, ascending.
        seconds: Of a request, median, at each place.
        memory: Peak resident bytes at each place; ``None`` where unknown.
        exponent: Of the power of the place that fits the seconds best; ``None`` of a single place.
    """

    name: str
    places: tuple[int, ...]
    seconds: tuple[float, ...]
    memory: tuple[int, ...] | None
    exponent: float | None
    memory_exponent: float | None


def widen(works: Sequence[Work], sweep: str, is_given: bool) -> list[Work]:
    """Add the points of a sweep to what is drawn.

    Args:
        works: What is drawn without it: one piece, or with ``is_given`` the points themselves.
        sweep: One of ``SWEEPS``.
        is_given: Whether an option lists what is swept.
    """
    if is_given:
        return list(works)
    (work,) = works
    if sweep == "size":
        points: list[dict[str, int]] = [
            {side: _scale(getattr(work, side), quarters) for side in ("width", "height")}
            for quarters in _QUARTERS
        ]
    elif sweep == "threads":
        points = [{"threads": count} for count in range(1, work.threads + 1)]
    else:
        points = [{sweep: 2**power} for power in range(_POINTS)]
    return list(dict.fromkeys(work.model_copy(update=point) for point in points))


def _scale(side: int, quarters: int) -> int:
    return max(_GRID, side * quarters // 4 // _GRID * _GRID)


def list_growths(rows: Sequence[Row], sweep: str) -> list[Growth]:
    """Sum up each case along a sweep."""
    measure = SWEEPS[sweep][1]
    named: dict[str, list[Row]] = {}
    for row in rows:
        if row.samples.pictures:
            named.setdefault(row.case.name, []).append(row)
    growths = []
    for name, found in named.items():
        found = sorted(found, key=lambda row: measure(row.case.work))
        places = tuple(measure(row.case.work) for row in found)
        seconds = tuple(summarise(row.samples.pictures).p50 for row in found)
        memory = tuple(row.samples.peak_bytes or 0 for row in found)
        growths.append(
            Growth(
                name,
                places,
                seconds,
                memory if all(memory) else None,
                fit_exponent(places, seconds),
                fit_exponent(places, memory) if all(memory) else None,
            )
        )
    return growths


def fit_exponent(places: Sequence[float], costs: Sequence[float]) -> float | None:
    """Fit cost = factor × place ^ exponent by least squares of the logarithms.

    Returns:
        The exponent; ``None`` if there are not two different places.
    """
    if len(set(places)) < 2:
        return None
    return float(np.polyfit(np.log(places), np.log(costs), 1)[0])
