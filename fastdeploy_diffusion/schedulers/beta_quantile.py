"""Quantiles of the beta distribution, which ``scipy.stats.beta.ppf`` computes elsewhere."""

import math

import numpy as np

from fastdeploy_diffusion.schedulers.arrays import FloatArray

# Of the continued fraction and of Newton's method: twice what float64 needs for shapes up to 3.
_TERMS = 60
_ITERATIONS = 12


def beta_quantile(probabilities: FloatArray, a: float, b: float) -> FloatArray:
    """Find where the cumulative beta distribution reaches each probability.

    Args:
        probabilities: From 0 to 1, any shape.
        a: First shape parameter, more than 0 and up to 3.
        b: Second shape parameter, likewise.

    Returns:
        Quantiles, same shape, float64, to within 1e-12.
    """
    wanted = np.asarray(probabilities, np.float64)
    # Above the middle, the distance to 1 is found, by symmetry.
    is_upper = wanted > beta_cdf(np.array(0.5), a, b)
    lower = _invert_below_half(np.where(is_upper, 0, wanted), a, b)
    upper = 1 - _invert_below_half(np.where(is_upper, 1 - wanted, 0), b, a)
    return np.where(is_upper, upper, lower)


def beta_cdf(x: FloatArray, a: float, b: float) -> FloatArray:
    """Compute the regularised incomplete beta function, float64.

    By its continued fraction, DLMF 8.17.22, which converges fast up to ``(a + 1) / (a + b + 2)``,
    and by symmetry beyond.
    """
    is_beyond = x > (a + 1) / (a + b + 2)
    below = _cdf_below(np.where(is_beyond, 0, x), a, b)
    above = 1 - _cdf_below(np.where(is_beyond, 1 - x, 0), b, a)
    return np.where(is_beyond, above, below)


def _invert_below_half(wanted: FloatArray, a: float, b: float) -> FloatArray:
    """Solve for quantiles up to 0.5 by Newton's method in logarithms, where the curve is flat."""
    beta = _complete_beta(a, b)
    target = np.log(np.where(wanted == 0, 1, wanted))
    logarithm = np.minimum((target + math.log(a * beta)) / a, math.log(0.5))
    for _ in range(_ITERATIONS):
        x = np.exp(logarithm)
        reached = beta_cdf(x, a, b)
        slope = x**a * (1 - x) ** (b - 1) / beta / reached
        logarithm = np.minimum(logarithm - (np.log(reached) - target) / slope, math.log(0.5))
    return np.where(wanted == 0, 0.0, np.exp(logarithm))


def _cdf_below(x: FloatArray, a: float, b: float) -> FloatArray:
    fraction = np.ones_like(x)
    for term in range(_TERMS, 0, -1):
        m = term // 2
        if term % 2:
            weight = -(a + m) * (a + b + m) / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            weight = m * (b - m) / ((a + 2 * m - 1) * (a + 2 * m))
        fraction = 1 + weight * x / fraction
    return np.asarray(x**a * (1 - x) ** b / (a * _complete_beta(a, b) * fraction))


def _complete_beta(a: float, b: float) -> float:
    return math.exp(math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b))
