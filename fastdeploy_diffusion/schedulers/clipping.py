"""Keep predicted clean samples in range, for models that work on pixels."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from fastdeploy_diffusion.schedulers.arrays import FloatArray
from fastdeploy_diffusion.schedulers.config import Magnitude, SchedulerConfig, Share


@dataclass(frozen=True, kw_only=True)
class ThresholdingConfig(SchedulerConfig):
    """Options of dynamic thresholding.

    Attributes:
        thresholding: Clip each sample at a quantile of its own magnitudes.
        dynamic_thresholding_ratio: That quantile.
        sample_max_value: Upper bound of the threshold.
    """

    thresholding: bool = False
    dynamic_thresholding_ratio: Share = 0.995
    sample_max_value: Annotated[float, Field(ge=1, le=1e6)] = 1.0


@dataclass(frozen=True, kw_only=True)
class ClippingConfig(ThresholdingConfig):
    """Options of clipping, dynamic or to a fixed range.

    Attributes:
        clip_sample: Clip to ``±clip_sample_range``; ``thresholding`` takes precedence.
        clip_sample_range: Largest magnitude.
        rescale_betas_zero_snr: Rescale the schedule so that the last timestep is pure noise.
    """

    clip_sample: bool = True
    clip_sample_range: Magnitude = 1.0
    rescale_betas_zero_snr: bool = False


def threshold_sample(config: ThresholdingConfig, clean: FloatArray) -> FloatArray:
    """Dynamic thresholding, section 2.3 of Imagen (https://arxiv.org/abs/2205.11487).

    Args:
        clean: ``(B, …)`` float32; every sample has its own threshold.

    Returns:
        The sample clipped to its threshold and divided by it, same shape and dtype.
    """
    magnitudes = np.abs(clean).reshape(len(clean), -1)
    threshold = np.quantile(magnitudes, config.dynamic_thresholding_ratio, axis=1)
    threshold = np.clip(threshold, 1, config.sample_max_value).astype(clean.dtype)
    threshold = threshold.reshape(-1, *[1] * (clean.ndim - 1))  # (B, 1, …)
    return np.asarray(np.clip(clean, -threshold, threshold) / threshold)


def clip_sample(config: ClippingConfig, clean: FloatArray) -> FloatArray:
    """Threshold or clip the predicted clean sample, as the config says."""
    if config.thresholding:
        return threshold_sample(config, clean)
    if config.clip_sample:
        return np.clip(clean, -config.clip_sample_range, config.clip_sample_range)
    return clean
