"""Previews: what a step's prediction says of the finished picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastdeploy_diffusion.schedulers.base import Scheduler
from fastdeploy_diffusion.schedulers.config import PredictionType
from fastdeploy_diffusion.schedulers.flow_match_euler import FlowMatchEulerScheduler
from fastdeploy_diffusion.schedulers.predictions import predict_clean

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Preview:
    """The latents that a step predicts for the finished picture, before anything is computed.

    Args:
        decode: Decodes clean latents to pictures.
        prediction_type: What the denoiser predicts; ``None`` for the velocity of a flow.
        latents: Before the step, as the scheduler has them.
        predicted: The denoiser's prediction for them, after guidance.
        signal: The share of clean latents in ``latents``.
        noise: The share of standard-normal noise in them.
    """

    decode: Callable[[FloatArray], list[Image.Image]]
    prediction_type: PredictionType | None
    latents: FloatArray
    predicted: FloatArray
    signal: float
    noise: float

    @classmethod
    def of(
        cls,
        decode: Callable[[FloatArray], list[Image.Image]],
        scheduler: Scheduler[Any],
        timestep: float,
        latents: FloatArray,
        predicted: FloatArray,
    ) -> Preview:
        """Note a step, before the scheduler takes it."""
        one, none = np.ones(1, np.float32), np.zeros(1, np.float32)
        signal, noise = (
            float(scheduler.add_noise(*each, timestep)[0]) for each in ((one, none), (none, one))
        )
        is_flow = isinstance(scheduler, FlowMatchEulerScheduler)
        kind = None if is_flow else scheduler.config.prediction_type
        return cls(decode, kind, latents, predicted, signal, noise)

    def draw(self) -> list[Image.Image]:
        """Draw the pictures."""
        return self.decode(self.predict_latents())

    def predict_latents(self) -> FloatArray:
        """Predict the clean latents."""
        if self.prediction_type is None:
            clean: FloatArray = self.latents - np.float32(self.noise) * self.predicted
            return clean
        # To unit variance, where all conventions agree.
        norm = np.hypot(self.signal, self.noise)
        alpha, sigma = self.signal / norm, self.noise / norm
        latents = self.latents / np.float32(norm)
        return predict_clean(
            self.prediction_type, self.predicted, latents, float(alpha), float(sigma)
        )
