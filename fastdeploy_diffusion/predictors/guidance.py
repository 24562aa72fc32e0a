"""Classifier-free guidance (Ho & Salimans, 2022) and its rescaling (Lin et al., 2023)."""

import numpy as np
import numpy.typing as npt

Latents = npt.NDArray[np.float32]


def guide(negative: Latents, positive: Latents, scale: float, rescale: float) -> Latents:
    """Move from the prediction for the negative prompt past the one for the prompt.

    Args:
        negative: Prediction for the negative prompts, (B, C, H, W) float32.
        positive: Prediction for the prompts, (B, C, H, W) float32.
        scale: Guidance scale; 1 gives ``positive``.
        rescale: How far to bring each picture's standard deviation back to that of ``positive``.

    Returns:
        (B, C, H, W) float32.
    """
    guided: Latents = negative + np.float32(scale) * (positive - negative)
    if rescale == 0:
        return guided
    rescaled = guided * (_deviation(positive) / _deviation(guided))
    mixed: Latents = np.float32(rescale) * rescaled + np.float32(1 - rescale) * guided
    return mixed


def _deviation(predictions: Latents) -> Latents:
    # With Bessel's correction, as torch's std has by default.
    deviation: Latents = predictions.std(axis=(1, 2, 3), keepdims=True, ddof=1)
    return deviation
