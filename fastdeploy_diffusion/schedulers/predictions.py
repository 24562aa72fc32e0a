"""Conversions of a denoiser's prediction to the clean latents and the noise.

Two conventions: *variance preserving*, ``latents = alpha * clean + sigma * noise`` with
``alpha**2 + sigma**2 == 1``, and *variance exploding*, ``latents = clean + sigma * noise``.
"""

import math

from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.schedulers.arrays import FloatArray
from fastdeploy_diffusion.schedulers.config import PredictionType


def predict_clean(
    prediction_type: PredictionType,
    model_output: FloatArray,
    latents: FloatArray,
    alpha: float,
    sigma: float,
) -> FloatArray:
    """Predict the clean latents, variance preserving.

    Raises:
        ConfigError: An epsilon-prediction model is asked to start from pure noise (``alpha == 0``).
    """
    if prediction_type == "sample":
        return model_output
    if prediction_type == "v_prediction":
        return alpha * latents - sigma * model_output
    if alpha == 0:
        raise ConfigError(
            "prediction_type='epsilon' cannot denoise a timestep that is pure noise "
            "(rescale_betas_zero_snr=True): the division by its signal gives NaN",
            allowed="prediction_type 'v_prediction' or 'sample', or timestep_spacing='leading'",
            fix="correct prediction_type or rescale_betas_zero_snr in scheduler_config.json",
        )
    return (latents - sigma * model_output) / alpha


def predict_noise(
    prediction_type: PredictionType,
    model_output: FloatArray,
    latents: FloatArray,
    alpha: float,
    sigma: float,
) -> FloatArray:
    """Predict the noise in the latents, variance preserving."""
    if prediction_type == "epsilon":
        return model_output
    if prediction_type == "v_prediction":
        return alpha * model_output + sigma * latents
    return (latents - alpha * model_output) / sigma


def predict_clean_from_sigma(
    prediction_type: PredictionType,
    model_output: FloatArray,
    latents: FloatArray,
    sigma: float,
) -> FloatArray:
    """Predict the clean latents, variance exploding."""
    if prediction_type == "sample":
        return model_output
    if prediction_type == "epsilon":
        return latents - sigma * model_output
    # The velocity is defined on variance-preserving latents, hence the rescaling.
    variance = sigma**2 + 1
    return model_output * (-sigma / math.sqrt(variance)) + latents / variance
