"""The range of inputs that networks can work with, checked alike on every engine."""

import numpy as np

# The first latents of any scheduler stay below 25,000. Networks square their inputs: long
# before that overflows, some engines give NaN, and some a plain grey picture.
LARGEST_VALUE = 1e6


def is_in_range(array: np.ndarray) -> bool:
    """Tell whether all values are numbers, and no larger than any picture has."""
    return bool((np.abs(array) <= LARGEST_VALUE).all())
