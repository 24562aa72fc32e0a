"""Quantiles of the beta distribution equal those of scipy, for which there is no dependency."""

import numpy as np
import pytest

from fastdeploy_diffusion.schedulers.beta_quantile import beta_cdf, beta_quantile


@pytest.mark.parametrize("count", [1, 2, 10, 50, 1000])
@pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (2.0, 0.5), (0.6, 3.0)])
def test_quantiles_equal_scipy(a, b, count):
    stats = pytest.importorskip("scipy.stats")
    probabilities = 1 - np.linspace(0, 1, count)
    wanted = stats.beta.ppf(probabilities, a, b)
    np.testing.assert_allclose(beta_quantile(probabilities, a, b), wanted, rtol=0, atol=1e-12)


def test_the_arcsine_distribution_is_known_exactly():
    """With both parameters 1/2, the quantile of p is the square of the sine of half pi p."""
    probabilities = np.linspace(0, 1, 101)
    wanted = np.sin(np.pi * probabilities / 2) ** 2
    np.testing.assert_allclose(beta_quantile(probabilities, 0.5, 0.5), wanted, rtol=0, atol=1e-14)


def test_quantiles_invert_the_distribution():
    probabilities = np.array([0, 1e-12, 1e-6, 0.01, 0.5, 0.99, 1 - 1e-6, 1])
    quantiles = beta_quantile(probabilities, 0.6, 0.6)
    np.testing.assert_allclose(beta_cdf(quantiles, 0.6, 0.6), probabilities, rtol=0, atol=1e-12)
    assert quantiles[0] == 0
    assert quantiles[-1] == 1
