"""The loop: prompts → conditioning → steps → pictures."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from typing_extensions import Self

from fastdeploy_diffusion.engines.plan import ComponentPlan
from fastdeploy_diffusion.engines.session import Session
from fastdeploy_diffusion.errors import CancelledError, EngineError, RequestError
from fastdeploy_diffusion.images import denormalize, to_pil, write_metadata
from fastdeploy_diffusion.noise import TorchGenerator
from fastdeploy_diffusion.predictors.build import ComponentBuild
from fastdeploy_diffusion.predictors.embedding import EmbeddingReport
from fastdeploy_diffusion.predictors.embedding_cache import EmbeddingCache
from fastdeploy_diffusion.predictors.memory_budget import MemoryBudget
from fastdeploy_diffusion.predictors.memory_need import (
    Estimate,
    MemoryNeed,
    PictureBatch,
    estimate_need,
)
from fastdeploy_diffusion.predictors.part import Part
from fastdeploy_diffusion.predictors.prompt_encoder import Texts
from fastdeploy_diffusion.predictors.residency import RESIDENCIES, Residency
from fastdeploy_diffusion.predictors.result import (
    GenerationResult,
    Pictures,
    PipelineReport,
    StageTimings,
    StepEvent,
)
from fastdeploy_diffusion.predictors.stage_clock import StageClock
from fastdeploy_diffusion.predictors.text_stage import TextStage
from fastdeploy_diffusion.predictors.unknown_names import AnswersUnknownNames
from fastdeploy_diffusion.requests.keyword_request import make_request
from fastdeploy_diffusion.requests.latent_check import check_latents
from fastdeploy_diffusion.requests.request import (
    GenerationPlan,
    GenerationRequest,
    ModelLimits,
)
from fastdeploy_diffusion.requests.step_callback import read_replacements
from fastdeploy_diffusion.schedulers.base import Scheduler

FloatArray = npt.NDArray[np.float32]

# Pixels of the pictures that are best drawn at once on a CPU. On two cores, 8 of 128 x 128 took a
# sixth less work each than one (openvino) or half of it (onnxruntime), and 16 hardly less; at
# 512 x 512, one is enough work.
_BATCH_PIXELS = 8 * 128 * 128


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser is told besides latents and timestep; one row a picture.

    Args:
        prompt_embeds: (B, T, D) float32.
        negative_prompt_embeds: (B, T, D) float32; ``None`` without guidance.
        pooled_prompt_embeds: (B, P) float32, for families that take them.
        negative_pooled_prompt_embeds: (B, P) float32, likewise; ``None`` without guidance.
    """

    prompt_embeds: FloatArray
    negative_prompt_embeds: FloatArray | None = None
    pooled_prompt_embeds: FloatArray | None = None
    negative_pooled_prompt_embeds: FloatArray | None = None


class DiffusionPredictor(AnswersUnknownNames, ABC):
    """Text to image with any model that denoises latents; a family fills in the networks.

    Args:
        memory: Which components are in memory at once: one of ``RESIDENCIES``.
        embeddings: Those of texts that were encoded before.
    """

    request_class: ClassVar[type[GenerationRequest]] = GenerationRequest
    _limits: ModelLimits  # set by the family

    def __init__(self, memory: str, embeddings: EmbeddingCache) -> None:
        self._memory = memory
        self._embeddings = embeddings
        self._cancellations = 0
        self._budget = MemoryBudget(memory)

    @property
    @abstractmethod
    def report(self) -> PipelineReport:
        """What really runs."""

    @abstractmethod
    def close(self) -> None:
        """Free the engines' memory; a later request builds again."""

    def __enter__(self) -> Self:
        """Give the pipeline, which is closed when the block ends."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Free the engines' memory."""
        self.close()

    def __call__(self, prompt: str | Sequence[str], **settings: Any) -> GenerationResult:
        """As ``generate``, whose result has ``images``, as in diffusers."""
        return self.generate(prompt, **settings)

    def text_to_image(self, prompt: Any, *unnamed: Any, **settings: Any) -> Pictures:
        """Draw a prompt; a family's pipeline says which settings it takes, and what it gives."""
        if unnamed:
            raise RequestError(
                f"{len(unnamed)} settings are given without their names",
                allowed="the prompt by place, and each setting by name",
                fix="text_to_image(prompt, height=…, width=…)",
            )
        result = self.generate(prompt, **settings)
        is_one = isinstance(prompt, str) and settings.get("num_images_per_prompt", 1) == 1
        return result.images[0] if is_one and isinstance(result.images, list) else result.images

    def generate(
        self, request: GenerationRequest | str | Sequence[str], **settings: Any
    ) -> GenerationResult:
        """Serve a request, and give its pictures with timings and report.

        Args:
            request: A request, or the prompt of one.
            **settings: With a prompt, as for ``text_to_image``.

        Raises:
            RequestError: A setting is unknown or not allowed.
            EngineError: A network failed.
            CancelledError: ``cancel`` was called.
        """
        for event in self.stream(request, **settings):
            if event.result is not None:
                return event.result
        raise EngineError("the loop ended without a result")

    def stream(
        self, request: GenerationRequest | str | Sequence[str], **settings: Any
    ) -> Iterator[StepEvent]:
        """Serve a request step by step; the last event carries the result.

        The request is checked here; work begins with the first event that is asked for. Stop early
        by closing the iterator, or with ``cancel``. Takes and raises the same as ``generate``.
        """
        if not isinstance(request, GenerationRequest):
            request = make_request(request, settings, self.request_class)
        elif settings:
            raise RequestError(
                f"a request is given, and settings beside it: {', '.join(settings)}",
                allowed="a request with its settings inside, or a prompt with settings",
                fix="dataclasses.replace(request, …)",
            )
        plan = self._plan(request)
        self._require_memory(plan)
        return self._watch_memory(plan, self._run(plan, self._start_scheduler(plan)))

    def describe_request(self, request: GenerationRequest) -> dict[str, Any]:
        """Check a request, and fill in what it leaves open; nothing is drawn.

        Returns:
            The settings of its first picture; None for what the model does not have.

        Raises:
            RequestError: A setting is not allowed.
        """
        return self._plan(request).settings(0)

    def choose_batch(self, request: GenerationRequest) -> int:
        """Say how many pictures of a request are best drawn at once, whatever it asks for.

        As many as pay: a device that is busy with one gains nothing by a second one. No more than
        fit into memory. And one, unless the engine is known to draw each as it draws it alone.

        Raises:
            RequestError: A setting is not allowed.
        """
        plan = self._plan(replace(request, num_images_per_prompt=1, latents=None, seed=0))
        *_, denoiser, _ = self._list_parts(plan)
        if not denoiser.component.keeps_rows_apart:
            return 1
        most = max(_BATCH_PIXELS // (plan.height * plan.width), 1)
        if self._limits.ranges is not None:
            rows = self._limits.ranges.batch.max // self._count_rows(plan)
            most = max(min(most, rows), 1)
        batch, estimate = self._describe_need(plan)
        return self._budget.limit(batch._replace(pictures=most), estimate)

    def build(self, height: int | None = None, width: int | None = None) -> PipelineReport:
        """Make everything ready for pictures of a size, without drawing one.

        Args:
            height: In pixels; the model's own if left out.
            width: In pixels; the model's own if left out.

        Returns:
            What will run.

        Raises:
            RequestError: The model does not draw this size.
            EngineError: A network cannot be built.
        """
        plan = self._plan_picture(height, width)
        self._require_memory(plan)
        parts = self._list_parts(plan)
        with self._explain_exhaustion(plan), RESIDENCIES[self._memory]() as residency:
            residency.begin(parts)
            for part in parts:
                with residency.lend(part):
                    pass  # it is built now, and what may stay stays
        return self.report

    def plan_builds(
        self, height: int | None = None, width: int | None = None
    ) -> list[ComponentBuild]:
        """Say what is built for pictures of a size; nothing is, but passes can be tried on it.

        Args:
            height: In pixels; the model's own if left out.
            width: In pixels; the model's own if left out.

        Raises:
            RequestError: The model does not draw this size.
        """
        parts = self._list_parts(self._plan_picture(height, width))
        return [part.component.plan(part.signature) for part in parts]

    @abstractmethod
    def find_plans(self) -> tuple[ComponentPlan | None, ...]:
        """Give what ``tune`` has found of each component; ``None`` where it was not tuned here."""

    def tune(
        self,
        height: int | None = None,
        width: int | None = None,
        *,
        runs: int = 5,
        show: Callable[[str, int, int], None] | None = None,
    ) -> list[ComponentPlan]:
        """Measure every way to run each component for pictures of a size, and keep what was found.

        Pipelines with ``engine="auto"`` take the fastest from then on, this one included if it has
        that engine.

        Args:
            height: In pixels; the model's own if left out.
            width: In pixels; the model's own if left out.
            runs: How many runs are timed, after one that is not.
            show: Called before each way that is tried, with what it is, the number of components
                that are done, and the number of all.

        Returns:
            A plan for each component.

        Raises:
            RequestError: The model does not draw this size.
            ConfigError: There is no cache to keep the plan in.
        """
        plan = self._plan_picture(height, width)
        self._require_memory(plan)
        parts = self._list_parts(plan)
        plans: list[ComponentPlan] = []

        def tell(what: str) -> None:
            if show is not None:
                show(what, len(plans), len(parts))

        for part in parts:
            plans.append(
                part.component.tune(part.signature, runs=runs, sizes=part.sizes, show=tell)
            )
        return plans

    def cancel(self) -> None:
        """Stop what is running, before its next step; it raises `CancelledError`."""
        self._cancellations += 1

    @abstractmethod
    def _plan(self, request: GenerationRequest) -> GenerationPlan:
        """Check a request."""

    def _plan_picture(self, height: int | None, width: int | None) -> GenerationPlan:
        return self._plan(GenerationRequest(prompt="", height=height, width=width))

    def _require_memory(self, plan: GenerationPlan) -> None:
        """Refuse what does not fit into memory, before anything is allocated."""

        def make_room() -> None:
            for part in self._list_parts(plan):
                part.component.pool.drop_idle(but=part.signature)

        self._budget.require(*self._describe_need(plan), self._limits.multiple, make_room)

    def _explain_exhaustion(self, plan: GenerationPlan) -> AbstractContextManager[None]:
        need = self._describe_need(plan)
        return self._budget.explain_exhaustion(*need, self._limits.multiple)

    def _describe_need(self, plan: GenerationPlan) -> tuple[PictureBatch, Estimate]:
        """Give the batch of a plan, and what estimates others that are like it."""

        def estimate(batch: PictureBatch, memory: str) -> MemoryNeed:
            _, height, width = batch
            shape = self._limits.shape_latents(height, width)
            like = replace(plan, height=height, width=width, latent_shape=shape)
            return estimate_need(self._list_parts(like), self._count_rows(plan), batch, memory)

        return PictureBatch(len(plan.seeds), plan.height, plan.width), estimate

    def _watch_memory(
        self, plan: GenerationPlan, events: Iterator[StepEvent]
    ) -> Iterator[StepEvent]:
        with self._explain_exhaustion(plan):
            yield from events

    @abstractmethod
    def _start_scheduler(self, plan: GenerationPlan) -> Scheduler[Any]:
        """A scheduler of this request's own, with its timesteps set."""

    def _draw_latents(self, plan: GenerationPlan, generators: list[TorchGenerator]) -> FloatArray:
        """Draw the first latents, each picture's from its own stream."""
        return _draw(generators, plan.latent_shape)

    @abstractmethod
    def _list_parts(self, plan: GenerationPlan) -> list[Part]:
        """What a plan needs, in the order in which it runs: text encoders, denoiser, VAE."""

    @abstractmethod
    def _count_rows(self, plan: GenerationPlan) -> int:
        """How many rows of the denoiser's batch one picture takes."""

    @abstractmethod
    def _list_texts(self, plan: GenerationPlan) -> Mapping[str, Texts]:
        """What text encoders read, by what `_condition` calls what they say of it."""

    def _condition(
        self, plan: GenerationPlan, embeddings: Mapping[str, FloatArray]
    ) -> Conditioning:
        """Make conditioning of embeddings; here, each is a field of it."""
        return Conditioning(**embeddings)

    @abstractmethod
    def _precompute(
        self,
        session: Session,
        plan: GenerationPlan,
        timesteps: Sequence[float],
        told: Conditioning,
    ) -> None:
        """Compute what stays the same over the steps; ``session`` is the denoiser's."""

    @abstractmethod
    def _predict(
        self,
        session: Session,
        plan: GenerationPlan,
        latents: FloatArray,
        timestep: float,
        told: Conditioning,
    ) -> FloatArray:
        """Predict from scaled latents, guidance included; ``session`` is the denoiser's."""

    @abstractmethod
    def _decode(self, session: Session, plan: GenerationPlan, latents: FloatArray) -> FloatArray:
        """Turn latents into images (B, 3, H, W), about in [-1, 1]; ``session`` is the VAE's."""

    @abstractmethod
    def _describe_run(self, embeddings: Sequence[EmbeddingReport]) -> dict[str, Any]:
        """What goes into a picture's metadata besides its settings."""

    def _run(
        self, plan: GenerationPlan, scheduler: Scheduler[Any]
    ) -> Generator[StepEvent, None, None]:
        # Sessions are given back when the iterator ends, however it does.
        with RESIDENCIES[self._memory]() as residency:
            yield from self._draw(plan, scheduler, residency)

    def _draw(
        self, plan: GenerationPlan, scheduler: Scheduler[Any], residency: Residency
    ) -> Generator[StepEvent, None, None]:
        cancellations = self._cancellations
        clock = StageClock(residency)
        *encoders, denoiser, vae_decoder = self._list_parts(plan)
        text_stage = TextStage(self._list_texts(plan), encoders, self._embeddings)
        residency.begin([*text_stage.encoders, denoiser, vae_decoder])
        told = self._condition(plan, text_stage.encode(residency))
        embeddings = text_stage.report()
        encoding = clock.lap()
        total = len(scheduler.timesteps)
        self._check_cancelled(cancellations, 0, total)
        generators = [TorchGenerator(seed) for seed in plan.seeds]
        latents = plan.request.latents
        if latents is None:
            latents = self._draw_latents(plan, generators)
        latents = latents * np.float32(scheduler.init_noise_sigma)
        check_latents(latents, plan, 0, total)
        steps: list[float] = []
        with residency.lend(denoiser) as session:
            clock.lap()
            self._precompute(session, plan, [float(each) for each in scheduler.timesteps], told)
            prologue = clock.lap()
            for index, timestep in enumerate(scheduler.timesteps):
                self._check_cancelled(cancellations, index, total)
                clock.lap()
                scaled = scheduler.scale_model_input(latents, timestep)
                predicted = self._predict(session, plan, scaled, float(timestep), told)
                latents = scheduler.step(
                    predicted, timestep, latents, noise=lambda: _draw(generators, plan.latent_shape)
                )
                latents, told = self._call_back(plan, index, float(timestep), latents, told)
                check_latents(latents, plan, index + 1, total)
                steps.append(clock.lap())
                event = StepEvent(index + 1, total, float(timestep), latents, steps[-1])
                if index < total - 1:
                    yield event
        self._check_cancelled(cancellations, total, total)
        clock.lap()
        decoded = None
        if plan.request.output_type != "latent":
            with residency.lend(vae_decoder) as session:
                decoded = self._decode(session, plan, latents)
        decoding = clock.lap()
        images = latents if decoded is None else self._finish(plan, decoded, embeddings)
        timings = StageTimings(
            residency.seconds, encoding, prologue, tuple(steps), decoding, clock.lap()
        )
        result = GenerationResult(images, plan.seeds, timings, self.report, embeddings)
        yield replace(event, result=result)

    def _check_cancelled(self, before: int, done: int, total: int) -> None:
        if self._cancellations != before:
            raise CancelledError(f"the generation was cancelled after {done} of {total} steps")

    def _call_back(
        self,
        plan: GenerationPlan,
        index: int,
        timestep: float,
        latents: FloatArray,
        told: Conditioning,
    ) -> tuple[FloatArray, Conditioning]:
        callback = plan.request.callback_on_step_end
        if callback is None:
            return latents, told
        tensors: dict[str, Any] = {
            "latents": latents,
            "prompt_embeds": told.prompt_embeds,
            "negative_prompt_embeds": told.negative_prompt_embeds,
        }
        chosen = {name: tensors[name] for name in plan.request.callback_on_step_end_tensor_inputs}
        tensors |= read_replacements(callback(self, index, timestep, chosen), tensors)
        return tensors["latents"], replace(
            told,
            prompt_embeds=tensors["prompt_embeds"],
            negative_prompt_embeds=tensors["negative_prompt_embeds"],
        )

    def _finish(
        self, plan: GenerationPlan, decoded: FloatArray, embeddings: Sequence[EmbeddingReport]
    ) -> list[Image.Image] | FloatArray:
        colours = denormalize(decoded)
        if plan.request.output_type == "np":
            return colours
        images = to_pil(colours)
        run = self._describe_run(embeddings)
        if plan.request.latents is not None:
            run["latents"] = "given by the caller; the settings alone do not make them again"
        for index, image in enumerate(images):
            write_metadata(image, plan.settings(index), run)
        return images


def _draw(generators: list[TorchGenerator], shape: tuple[int, ...]) -> FloatArray:
    """Noise of which every picture draws its share from its own stream."""
    return np.stack([generator.randn(shape) for generator in generators])
