"""How sure a ratio of two medians is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 5000
_SEED = 20261121
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A ratio and where it lies, with 95 % confidence.

    Args:
        ratio: Of the medians, after / before.
        low: The lower end.
        high: The upper end.
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
