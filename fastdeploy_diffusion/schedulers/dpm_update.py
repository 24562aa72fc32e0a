"""Coefficients of one DPM-Solver step, for its four variants."""

import math
from dataclasses import dataclass
from typing import Literal

AlgorithmType = Literal["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"]


@dataclass(frozen=True)
class NoiseLevel:
    """A point of the variance-preserving trajectory.

    Attributes:
        alpha: Weight of the clean sample.
        sigma: Weight of the noise; ``alpha**2 + sigma**2 == 1``.
        log_snr: ``log(alpha / sigma)``, the solver's time; infinite without noise.
    """

    alpha: float
    sigma: float
    log_snr: float


def noise_level(sigma: float) -> NoiseLevel:
    """Make the point whose noise-to-signal ratio is ``sigma``."""
    alpha = 1 / math.sqrt(sigma**2 + 1)
    return NoiseLevel(alpha, sigma * alpha, -math.log(sigma) if sigma > 0 else math.inf)


@dataclass(frozen=True)
class UpdateWeights:
    """Weights of a step's terms.

    Attributes:
        latents: Of the latents.
        output: Of the newest model output.
        slope: Of its first derivative in log-SNR, exact ("heun"); "midpoint" takes half of
            ``output``.
        noise: Of fresh noise; 0 for the ODE variants.
    """

    latents: float
    output: float
    slope: float
    noise: float


def update_weights(algorithm: AlgorithmType, start: NoiseLevel, end: NoiseLevel) -> UpdateWeights:
    """Compute the weights of the step from one noise level to a lower one.

    Sources: https://arxiv.org/abs/2206.00927 (dpmsolver, works on the noise) and
    https://arxiv.org/abs/2211.01095 (dpmsolver++, works on the clean sample; both SDE forms), as
    diffusers writes them. Only the ``++`` variants can end without noise.
    """
    h = end.log_snr - start.log_snr
    if algorithm == "dpmsolver++":
        decay = -math.expm1(-h)
        return UpdateWeights(
            latents=end.sigma / start.sigma,
            output=end.alpha * decay,
            slope=end.alpha * (1 - decay / h),
            noise=0.0,
        )
    if algorithm == "sde-dpmsolver++":
        decay = -math.expm1(-2 * h)
        return UpdateWeights(
            latents=end.sigma / start.sigma * math.exp(-h),
            output=end.alpha * decay,
            slope=end.alpha * (1 - decay / (2 * h)),
            noise=end.sigma * math.sqrt(decay),
        )
    growth = math.expm1(h)
    output, slope = -end.sigma * growth, -end.sigma * (growth / h - 1)
    latents = end.alpha / start.alpha
    if algorithm == "dpmsolver":
        return UpdateWeights(latents, output, slope, noise=0.0)
    noise = end.sigma * math.sqrt(math.expm1(2 * h))
    return UpdateWeights(latents, 2 * output, 2 * slope, noise)


def curvature_weight(algorithm: AlgorithmType, start: NoiseLevel, end: NoiseLevel) -> float:
    """Compute the weight of the second derivative, for third order; sde-dpmsolver has none."""
    h = end.log_snr - start.log_snr
    if algorithm == "dpmsolver++":
        return -end.alpha * ((math.expm1(-h) + h) / h**2 - 0.5)
    if algorithm == "sde-dpmsolver++":
        return -end.alpha * ((math.expm1(-2 * h) + 2 * h) / (2 * h) ** 2 + 0.5)
    return -end.sigma * ((math.expm1(h) - h) / h**2 - 0.5)
