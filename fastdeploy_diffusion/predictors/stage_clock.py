"""How long the stages of a request take, without the preparing of components."""

import time

from fastdeploy_diffusion.predictors.residency import Residency


class StageClock:
    """Tells how long the stages take; what preparing components takes does not count.

    Args:
        residency: Knows how long that takes.
    """

    def __init__(self, residency: Residency) -> None:
        self._residency = residency
        self._last = self._read()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = self._read()
        seconds, self._last = now - self._last, now
        return seconds

    def _read(self) -> float:
        return time.perf_counter() - self._residency.seconds
