"""The distance of a picture from that of a reference."""

import numpy as np


def psnr(given: np.ndarray, wanted: np.ndarray) -> float:
    """PSNR in dB of float pictures in [0, 1]; the reference must not be of one colour."""
    assert given.shape == wanted.shape
    assert wanted.std() > 0.01
    return float(-10 * np.log10(np.mean((given - wanted) ** 2) + 1e-20))
