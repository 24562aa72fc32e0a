"""T5's buckets of distances between tokens."""

import math

import numpy as np
import numpy.typing as npt


def list_buckets(buckets: int, farthest: int) -> npt.NDArray[np.int64]:
    """Give the bucket of each distance from a query to a key, both directions.

    Half of the buckets are for keys behind the query. Of each half, half are for one distance each,
    and the rest grow logarithmically (Raffel et al., 2020, sec. 2.1).

    Args:
        buckets: How many there are.
        farthest: Distance from which on all share the last bucket.

    Returns:
        Of the distances -farthest … farthest, (2 · farthest + 1,) int64.
    """
    distances = np.arange(-farthest, farthest + 1)
    half = buckets // 2
    exact = half // 2
    lengths = np.abs(distances)
    # In float32, as in the reference, for at the borders of buckets rounding decides.
    ratios = np.maximum(lengths, 1).astype(np.float32) / np.float32(exact)
    scaled = np.log(ratios) / np.float32(math.log(farthest / exact)) * np.float32(half - exact)
    grown = np.minimum(exact + scaled.astype(np.int64), half - 1)
    return np.where(distances > 0, half, 0) + np.where(lengths < exact, lengths, grown)
