"""Statistics of samples: percentiles, spread, and the confidence of a ratio."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Half of the samples further apart than this share of the median: too unsteady to rely on.
WIDEST_SPREAD = 0.10
_RESAMPLES = 5000
_SEED = 20261121
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Statistics of samples; percentiles are interpolated, so that few samples say little."""

    count: int
    minimum: float
    p25: float
    p50: float
    p75: float
    p90: float
    p95: float
    p99: float
    mean: float

    @property
    def spread(self) -> float:
        """Interquartile range, as a share of the median."""
        return (self.p75 - self.p25) / self.p50 if self.p50 else 0.0

    @property
    def is_unsteady(self) -> bool:
        """Whether the spread is too wide to rely on."""
        return self.spread > WIDEST_SPREAD


def summarise(samples: Sequence[float]) -> Summary:
    """Sum up one sample or more.

    Raises:
        ValueError: There is none.
    """
    if not samples:
        raise ValueError("there are no samples")
    points = np.percentile(np.array(samples, np.float64), (0, 25, 50, 75, 90, 95, 99))
    least, p25, p50, p75, p90, p95, p99 = points.tolist()
    return Summary(len(samples), least, p25, p50, p75, p90, p95, p99, float(np.mean(samples)))


@dataclass(frozen=True)
class Interval:
    """A ratio and where it lies, with 95 % confidence.

    Args:
        ratio: Of the medians, after / before.
    """

    ratio: float
    low: float
    high: float


def estimate_ratio(before: Sequence[float], after: Sequence[float]) -> Interval:
    """Estimate how many times as long it takes now (percentile bootstrap, Efron 1979).

    Args:
        before: Samples; two at least, for one alone says nothing of how they spread.
        after: Samples; two at least.
    """
    random = np.random.default_rng(_SEED)
    medians = [
        np.median(random.choice(np.array(each), (_RESAMPLES, len(each))), axis=1)
        for each in (before, after)
    ]
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(medians[1] / medians[0], (tail, 100 - tail)).tolist()
    return Interval(float(np.median(after) / np.median(before)), low, high)
