"""Difference of pictures: PSNR and SSIM."""

import numpy as np
import numpy.typing as npt

Pictures = npt.NDArray[np.uint8]

_RANGE = 255.0
# Wang et al. (2004), "Image quality assessment: from error visibility to structural similarity".
_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03


def measure_psnr(given: Pictures, wanted: Pictures) -> float | None:
    """Peak signal-to-noise ratio in dB of the worst picture; ``None`` if all are identical.

    Args:
        given: (B, H, W, 3) uint8.

    Raises:
        ValueError: The shapes differ.
    """
    _check_shapes(given, wanted)
    difference = given.astype(np.float64) - wanted.astype(np.float64)
    error = float(np.mean(difference**2, axis=(1, 2, 3)).max())
    return 10 * float(np.log10(_RANGE**2 / error)) if error else None


def measure_ssim(given: Pictures, wanted: Pictures) -> float:
    """Structural similarity of the worst picture: the mean over pixels and channels; 1 is the same.

    With a Gaussian window of 11 × 11 pixels, only where it lies wholly inside the picture.

    Args:
        given: (B, H, W, 3) uint8, of at least 11 × 11 pixels.

    Raises:
        ValueError: The shapes differ, or are smaller than the window.
    """
    _check_shapes(given, wanted)
    if min(given.shape[1:3]) < _WINDOW:
        raise ValueError(f"pictures of {given.shape[1:3]} are smaller than the window")
    x, y = given.astype(np.float64), wanted.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x**2
    variance_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (_K1 * _RANGE) ** 2, (_K2 * _RANGE) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return float(np.mean(luminance * structure, axis=(1, 2, 3)).min())


def _blur(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    weights /= weights.sum()
    for axis in (1, 2):  # a Gaussian is the product of its rows and columns
        size = values.shape[axis] - _WINDOW + 1
        values = sum(
            (
                weight * values.take(range(start, start + size), axis)
                for start, weight in enumerate(weights)
            ),
            start=np.zeros(()),
        )
    return values


def _check_shapes(given: Pictures, wanted: Pictures) -> None:
    if given.shape != wanted.shape:
        raise ValueError(f"pictures of {given.shape} compared with {wanted.shape}")
