"""Weights of words, applied to the features of a text."""

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.errors import RequestError


def emphasize(
    features: npt.NDArray[np.float32], weights: tuple[float, ...]
) -> npt.NDArray[np.float32]:
    """Multiply the features of each token by its weight, and restore the mean of all.

    Source: the mode "Original" in ``sd_emphasis.py`` of AUTOMATIC1111's web UI.

    Args:
        features: Of one chunk, (T, D).
        weights: T of them.

    Raises:
        RequestError: Weights so far from 1 that numbers overflow.
    """
    with np.errstate(all="ignore"):  # what overflows is refused
        weighted = features * np.array(weights, np.float32)[:, None]
        # In double precision, for the mean may be much smaller than the features.
        means = (each.mean(dtype=np.float64) for each in (features, weighted))
        emphasized: npt.NDArray[np.float32] = weighted * np.float32(np.divide(*means))
    if not np.isfinite(emphasized).all():
        raise RequestError(
            f"weights of the prompt, {min(weights):g} to {max(weights):g}, make numbers that are "
            "too large to compute with",
            fix="give weights nearer to 1",
        )
    return emphasized
