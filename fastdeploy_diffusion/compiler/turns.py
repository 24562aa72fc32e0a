"""Two builds of one network timed in turns, so that a busy moment of the machine hits both."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fastdeploy_diffusion.runtime.session import Session

_FEWEST_TURNS = 5
_MOST_TURNS = 41
_SECONDS = 10.0  # after which no turn is begun, once there are enough


@dataclass(frozen=True)
class TurnTimings:
    """Seconds of one run of each, turn by turn."""

    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def median_before(self) -> float:
        """Seconds."""
        return statistics.median(self.before)

    @property
    def median_after(self) -> float:
        """Seconds."""
        return statistics.median(self.after)

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times as fast it became, turn by turn: 2 is half the time."""
        return tuple(before / after for before, after in zip(self.before, self.after, strict=True))

    @property
    def median_ratio(self) -> float:
        """The median of ``ratios``, which is not the ratio of the medians."""
        return statistics.median(self.ratios)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between which half of the ``ratios`` lie; a busy machine spoils the extremes."""
        first, _, third = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return first, third


def time_in_turns(before: Session, after: Session, feeds: Mapping[str, np.ndarray]) -> TurnTimings:
    """Time two sessions of the same signature.

    Each runs once untimed before it is timed, for its threads sleep and the processor's caches are
    the other one's; in a loop of steps they would not be. The first of a turn alternates.

    Raises:
        EngineError: A session fails.
    """
    seconds: dict[Session, list[float]] = {before: [], after: []}
    run_once = {session: session.prepare(**feeds) for session in (before, after)}
    order = [before, after]
    ends = time.perf_counter() + _SECONDS
    for turn in range(_MOST_TURNS):
        if turn >= _FEWEST_TURNS and time.perf_counter() > ends:
            break
        for session in order:
            run_once[session]()
            started = time.perf_counter()
            run_once[session]()
            seconds[session].append(time.perf_counter() - started)
        order.reverse()
    return TurnTimings(tuple(seconds[before]), tuple(seconds[after]))
