"""Results of a generation: events while it runs, pictures and timings at its end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastdeploy_diffusion.predictors.component import ComponentReport
from fastdeploy_diffusion.predictors.texts import EmbeddingReport

Pictures: TypeAlias = Image.Image | list[Image.Image] | npt.NDArray[np.float32]
"""The result of ``text_to_image``."""


@dataclass(frozen=True)
class PipelineReport:
    """Engine, device, fallback and proof of each component, as it really runs.

    Args:
        components: In the order in which they run.
        memory: Which of them are in memory at once: ``"resident"`` for all, ``"staged"`` for one,
            ``"streamed"`` for one, or a part of it.
    """

    model: str
    family: str
    scheduler: str
    components: tuple[ComponentReport, ...]
    memory: str

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Why components do not run on what was asked for; empty when all do."""
        return tuple(dict.fromkeys(each.fallback for each in self.components if each.fallback))

    @property
    def advice(self) -> str | None:
        """What would be faster: an engine that is not installed, or fp32; ``None`` if nothing."""
        for each in self.components:
            for engine, command in each.installable.items():
                return f"{engine} is faster as a rule, and is not installed: {command}"
        for each in self.components:
            if each.slower:
                return f"fp32 is faster than {each.precision} here, with more memory: {each.slower}"
        return None


@dataclass(frozen=True)
class StageTimings:
    """Seconds of each stage of one request.

    Args:
        prepare: Building, loading and checking components; 0 or little after the first request,
            unless memory is staged or streamed.
        text_encoder: Tokenizer and text encoder, or the look-up of kept embeddings.
        prologue: Computations that a pass has hoisted out of the steps.
        steps: Each step: denoiser, guidance, scheduler and callback.
        vae_decoder: All pictures.
        post_processing: Arrays to images with metadata.
        beginning: The first latents: noise, and the VAE's encoder where a picture is given.
    """

    prepare: float
    text_encoder: float
    prologue: float
    steps: tuple[float, ...]
    vae_decoder: float
    post_processing: float
    beginning: float = 0.0

    @property
    def total(self) -> float:
        """Everything but ``prepare``."""
        before = self.text_encoder + self.beginning + self.prologue
        after = self.vae_decoder + self.post_processing
        return before + sum(self.steps) + after


@dataclass(frozen=True)
class GenerationResult:
    """The pictures of one request.

    Args:
        images: By ``output_type``: Pillow images whose ``info`` carries seed and settings,
            (B, H, W, 3) float32 in [0, 1], or scaled latents (B, 4, H/8, W/8) float32.
        embeddings: Of each text encoder, how many texts it read, and how many were kept.
    """

    images: list[Image.Image] | npt.NDArray[np.float32]
    seeds: tuple[int, ...]
    timings: StageTimings
    report: PipelineReport
    embeddings: tuple[EmbeddingReport, ...]


@dataclass(frozen=True)
class StepEvent:
    """One finished step.

    Args:
        step: Its number, from 1.
        total: Number of steps (of denoiser calls: two-call schedulers have more).
        latents: After the step, (B, 4, H/8, W/8) float32.
        result: The pictures; only in the last event.
        preview: Draws what the step predicts of the finished pictures, with the tiny VAE of
            ``tiny_vae_path``: Pillow images, decoded when it is called. ``None`` without one.
    """

    step: int
    total: int
    timestep: float
    latents: npt.NDArray[np.float32]
    seconds: float
    result: GenerationResult | None = None
    preview: Callable[[], list[Image.Image]] | None = None
