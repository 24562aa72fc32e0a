"""Guidance: predictions with a condition, against those without."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def guide(negative: FloatArray, positive: FloatArray, scale: float, rescale: float) -> FloatArray:
    """Apply classifier-free guidance (Ho & Salimans, 2022), rescaled (Lin et al., 2023).

    Args:
        negative: Prediction for the negative prompts, (B, …) float32.
        positive: Prediction for the prompts, likewise.
        scale: Guidance scale; 1 gives ``positive``.
        rescale: How far to bring each picture's standard deviation back to that of ``positive``.
    """
    guided: FloatArray = negative + np.float32(scale) * (positive - negative)
    return _rescale(guided, positive, rescale)


def guide_twice(
    predicted: FloatArray, scale: float, image_scale: float, rescale: float
) -> FloatArray:
    """Guide by the prompt and by a picture (Brooks et al., 2023, equation 3).

    Args:
        predicted: Without prompt and picture, with the picture alone, and with both, (3 B, …)
            float32.
        rescale: As of `guide`, to the deviation of the prediction with both.
    """
    without, pictured, both = np.split(predicted, 3)
    by_text, by_picture = both - pictured, pictured - without
    guided: FloatArray = (
        without + np.float32(scale) * by_text + np.float32(image_scale) * by_picture
    )
    return _rescale(guided, both, rescale)


def _rescale(guided: FloatArray, positive: FloatArray, rescale: float) -> FloatArray:
    if rescale == 0:
        return guided
    rescaled = guided * (_deviation(positive) / _deviation(guided))
    mixed: FloatArray = np.float32(rescale) * rescaled + np.float32(1 - rescale) * guided
    return mixed


def _deviation(predictions: FloatArray) -> FloatArray:
    # With Bessel's correction, as torch's std has by default.
    axes = tuple(range(1, predictions.ndim))
    deviation: FloatArray = predictions.std(axis=axes, keepdims=True, ddof=1)
    return deviation
