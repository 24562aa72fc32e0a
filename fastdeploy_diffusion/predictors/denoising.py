"""The denoisings of a request: mostly one, and a second that goes on with what the first left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.errors import CancelledError
from fastdeploy_diffusion.noise import TorchGenerator
from fastdeploy_diffusion.predictors.latent_source import LatentSource
from fastdeploy_diffusion.predictors.result import StageTimings, StepEvent
from fastdeploy_diffusion.predictors.texts import EmbeddingReport
from fastdeploy_diffusion.requests.plan import GenerationPlan
from fastdeploy_diffusion.schedulers.base import Scheduler

if TYPE_CHECKING:
    from fastdeploy_diffusion.predictors.loop import DenoisingLoop

PlanT = TypeVar("PlanT", bound=GenerationPlan)
OF_REFINER = "refiner_"
"""Begins the names of a refiner's components, beside those of its base model."""


@dataclass(frozen=True, eq=False)
class Denoising(Generic[PlanT]):
    """One denoising: who runs it, with which plan."""

    loop: DenoisingLoop[PlanT]
    plan: PlanT
    scheduler: Scheduler[Any]

    @property
    def steps(self) -> int:
        """Number of the denoiser's calls."""
        return len(self.scheduler.timesteps)

    def name_embeddings(
        self, asked: DenoisingLoop[Any], embeddings: Sequence[EmbeddingReport]
    ) -> tuple[EmbeddingReport, ...]:
        """Name the text encoders of a refiner as the report of who was asked names them."""
        prefix = "" if self.loop is asked else OF_REFINER
        return tuple(replace(each, component=prefix + each.component) for each in embeddings)


@dataclass(frozen=True, eq=False)
class Denoised:
    """What a denoising has left.

    Args:
        denoising: Which it was.
        latents: (B, …) float32, in the denoiser's layout.
        source: Where they come from.
        generators: Of each picture's noise, as far as it was drawn.
        embeddings: As of `GenerationResult`.
        timings: As far as they are known.
        event: Of the last step.
    """

    denoising: Denoising[Any]
    latents: npt.NDArray[np.float32]
    source: LatentSource
    generators: Sequence[TorchGenerator]
    embeddings: tuple[EmbeddingReport, ...]
    timings: StageTimings
    event: StepEvent


class Progress:
    """Counts the steps of a request, over all its denoisings.

    Attributes:
        total: Number of them.
        done: Number of those that are done.
    """

    def __init__(self, total: int, is_cancelled: Callable[[], bool]) -> None:
        self.total, self.done = total, 0
        self._is_cancelled = is_cancelled

    def check(self) -> None:
        """End the request where it was cancelled.

        Raises:
            CancelledError: It was.
        """
        if self._is_cancelled():
            raise CancelledError(
                f"the generation was cancelled after {self.done} of {self.total} steps"
            )


def join_timings(all_timings: Sequence[StageTimings]) -> StageTimings:
    """Add up the seconds of denoisings that ran one after another."""
    return StageTimings(
        prepare=sum(each.prepare for each in all_timings),
        text_encoder=sum(each.text_encoder for each in all_timings),
        prologue=sum(each.prologue for each in all_timings),
        steps=tuple(seconds for each in all_timings for seconds in each.steps),
        vae_decoder=sum(each.vae_decoder for each in all_timings),
        post_processing=sum(each.post_processing for each in all_timings),
        beginning=sum(each.beginning for each in all_timings),
    )
