"""The loop of one request: prompts → conditioning → steps → pictures.

It is a generator that yields the predictions that it needs, and receives them; a driver
(`drivers`) runs the denoiser for one such loop, or for many at once.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, ClassVar, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastdeploy_diffusion.images import denormalize, to_pil, write_metadata
from fastdeploy_diffusion.noise import TorchGenerator
from fastdeploy_diffusion.pictures_in import Size
from fastdeploy_diffusion.predictors.component import Parts
from fastdeploy_diffusion.predictors.controlled_session import name_pictures
from fastdeploy_diffusion.predictors.denoising import (
    Denoised,
    Denoising,
    Progress,
    join_timings,
)
from fastdeploy_diffusion.predictors.embedding_cache import EmbeddingCache
from fastdeploy_diffusion.predictors.enlarging import enlarge_latents, enlarge_pictures
from fastdeploy_diffusion.predictors.guidance import guide, guide_twice
from fastdeploy_diffusion.predictors.image_stage import ImageStage
from fastdeploy_diffusion.predictors.latent_source import (
    UNCONDITIONAL,
    HandedSource,
    LatentSource,
    NoisedSource,
)
from fastdeploy_diffusion.predictors.preview import Preview
from fastdeploy_diffusion.predictors.residency import Residency
from fastdeploy_diffusion.predictors.result import (
    GenerationResult,
    PipelineReport,
    StageTimings,
    StepEvent,
)
from fastdeploy_diffusion.predictors.text_stage import TextStage
from fastdeploy_diffusion.predictors.texts import EmbeddingReport, Texts
from fastdeploy_diffusion.predictors.vae import VAEDecoder
from fastdeploy_diffusion.requests.latent_check import check_latents
from fastdeploy_diffusion.requests.plan import GenerationPlan
from fastdeploy_diffusion.requests.step_callback import read_replacements
from fastdeploy_diffusion.runtime.session import Handle, Row, Session
from fastdeploy_diffusion.schedulers.base import Scheduler

FloatArray = npt.NDArray[np.float32]
PlanT = TypeVar("PlanT", bound=GenerationPlan)

# The name of text features in callbacks, and in networks.
PROMPT, NEGATIVE = "prompt_embeds", "negative_prompt_embeds"
_FEATURES = "encoder_hidden_states"


class Predict(NamedTuple):
    """A loop's request to its driver: a prediction for each of some rows.

    Args:
        rows: Latents with their conditioning and timestep.
        most: How many of them run at once when the request is alone.
        kind: Rows of equal kinds may run at once; ``None`` where numbers depend on the batch.
    """

    session: Session
    rows: Sequence[Row]
    most: int
    kind: Hashable | None


Loop: TypeAlias = Generator[Predict | StepEvent, FloatArray | None, None]


@dataclass(frozen=True, eq=False)
class Conditioning:
    """The denoiser's inputs for one picture besides latents and timestep.

    Args:
        tensors: The other inputs of the network by name, each for a batch of 1; float32.
    """

    tensors: Mapping[str, FloatArray]

    def change(self, features: FloatArray) -> "Conditioning":
        """Replace the features of the text, (T, D); returns itself if they are equal."""
        if np.array_equal(features, self.tensors[_FEATURES][0]):
            return self
        return Conditioning({**self.tensors, _FEATURES: features[None]})


Sides: TypeAlias = Mapping[str, Sequence[Conditioning]]
"""The conditionings of the negative prompts, if any, and of the prompts; one a picture."""


class DenoisingLoop(ABC, Generic[PlanT]):
    """The loop that all families have in common; a family fills in the networks."""

    timestep_unit: ClassVar[float] = 1.0  # how many of the scheduler are one of the denoiser
    _embeddings: EmbeddingCache
    _cancellations: int
    _vae: VAEDecoder

    @property
    @abstractmethod
    def report(self) -> PipelineReport:
        """The components, as they really run."""

    @property
    @abstractmethod
    def _keeps_rows_apart(self) -> bool:
        """Whether a row of the denoiser's batch does not depend on the others."""

    @abstractmethod
    def _list_parts(self, plan: PlanT) -> Parts:
        """List the parts that every plan has."""

    @abstractmethod
    def _find_parts(self, plan: PlanT) -> Parts:
        """List the parts of a plan, the VAE's encoder and ControlNets where they are needed."""

    @abstractmethod
    def _require_memory(self, plan: PlanT) -> None:
        """Refuse requests that do not fit into memory, before anything is allocated."""

    @abstractmethod
    def _count_rows(self, plan: PlanT) -> int:
        """Count the rows of the denoiser's batch for one picture."""

    @abstractmethod
    def _list_texts(self, plan: PlanT, *, negative: bool) -> Mapping[str, Texts]:
        """List the texts for the encoders, of the prompts or of the negative ones, by name."""

    def _condition(
        self, plan: PlanT, embeddings: Mapping[str, FloatArray], *, negative: bool
    ) -> Mapping[str, FloatArray]:
        """Make the tensors of a `Conditioning` of the embeddings of one picture's texts.

        Args:
            embeddings: By the names of ``_list_texts``, each for a batch of 1.
            negative: Whether they are those of the negative prompt.
        """
        return embeddings

    def _draw_latents(self, plan: PlanT, generators: Sequence[TorchGenerator]) -> FloatArray:
        """Draw noise of the latents' shape, each picture's from its own stream."""
        return _draw(generators, plan.latent_shape)

    def _pack(self, latents: FloatArray) -> FloatArray:
        """Convert latents of the VAE's layout, (B, C, H, W), to the denoiser's."""
        return latents

    def _unpack(self, plan: PlanT, latents: FloatArray) -> FloatArray:
        """Convert latents to the VAE's layout, (B, C, H, W)."""
        return latents

    @property
    @abstractmethod
    def _has_previews(self) -> bool:
        """Whether there is a tiny VAE to decode them."""

    @abstractmethod
    def _decode_preview(self, plan: PlanT, latents: FloatArray) -> list[Image.Image]:
        """Decode latents with the tiny VAE, apart from the request's own components."""

    @abstractmethod
    def _make_source(self, plan: PlanT, parts: Parts) -> LatentSource:
        """Make what a kind of request draws its latents from."""

    def _start_images(self, plan: PlanT) -> ImageStage | None:
        """Start to encode the image prompt, which adds to each side's `Conditioning`."""
        return None

    def _lend_denoiser(self, parts: Parts, residency: Residency) -> AbstractContextManager[Session]:
        """Lend the denoiser, with what runs before it at every step."""
        return residency.lend(parts.denoiser)

    def _bring_residuals(
        self, plan: PlanT, step: int, steps: int, *, negative: bool
    ) -> Mapping[str, FloatArray]:
        """Make what each row brings to a step, besides its sample."""
        return {}

    @abstractmethod
    def _name_scheduler(self, plan: PlanT) -> str:
        """Name the scheduler of a request."""

    def _describe_control(self, plan: PlanT) -> dict[str, Any]:
        """Describe what controls a picture, for its metadata."""
        return {}

    @abstractmethod
    def _describe_run(self, plan: PlanT, embeddings: Sequence[EmbeddingReport]) -> dict[str, Any]:
        """Describe the run for a picture's metadata, besides settings and scheduler."""

    def _draw(
        self,
        denoisings: Sequence[Denoising[Any]],
        residency: Residency,
        cancelled: threading.Event,
    ) -> Loop:
        """Run denoisings, each with what the one before has left, and make the pictures."""
        cancellations = self._cancellations
        progress = Progress(
            sum(each.steps for each in denoisings),
            lambda: cancelled.is_set() or self._cancellations != cancellations,
        )
        progress.check()
        all_timings: list[StageTimings] = []
        embeddings: tuple[EmbeddingReport, ...] = ()
        done = None
        for each in denoisings:
            is_last = each is denoisings[-1]
            done = yield from each.loop._denoise(each, residency, progress, done, is_last=is_last)
            all_timings.append(done.timings)
            embeddings += each.name_embeddings(self, done.embeddings)
        assert done is not None  # there is one at least
        last, plan = denoisings[-1].loop, denoisings[-1].plan
        progress.check()
        residency.lap()
        pictures: list[Image.Image] | FloatArray = done.latents
        decoding = 0.0
        if plan.request.output_type != "latent":
            decoded = last._decode(plan, done.latents, residency)
            decoding = residency.lap()
            pictures = self._finish(denoisings, done.source, decoded, embeddings)
        ending = StageTimings(residency.seconds, 0.0, 0.0, (), decoding, residency.lap())
        report = replace(self.report, scheduler=self._name_scheduler(denoisings[0].plan))
        timings = join_timings([*all_timings, ending])
        result = GenerationResult(pictures, plan.seeds, timings, report, embeddings)
        yield replace(done.event, result=result)

    def _decode(self, plan: PlanT, latents: FloatArray, residency: Residency) -> FloatArray:
        """Decode latents to (B, 3, H, W) float32 in about [-1, 1]."""
        with residency.lend(self._find_parts(plan).decoder) as session:
            return self._vae.decode(session, self._unpack(plan, latents))

    def _denoise(
        self,
        denoising: Denoising[PlanT],
        residency: Residency,
        progress: Progress,
        before: Denoised | None,
        *,
        is_last: bool,
    ) -> Generator[Predict | StepEvent, FloatArray | None, Denoised]:
        """Run one denoising.

        Args:
            before: What the one before has left.
            is_last: Whether its latents become the pictures.
        """
        plan, scheduler = denoising.plan, denoising.scheduler
        parts = self._find_parts(plan)
        denoiser, decoder = parts.denoiser, parts.decoder
        generators: Sequence[TorchGenerator] = [TorchGenerator(seed) for seed in plan.seeds]
        if before is None:
            source = self._make_source(plan, parts)
        elif plan.is_handed_over:
            source, generators = HandedSource(before.latents), before.generators
        else:
            source = self._enlarge(before, plan, parts, residency)
        texts = self._list_all_texts(plan)
        text_stage = TextStage(texts, parts.texts, self._embeddings)
        most = self._count_rows(plan) * len(plan.seeds)
        image_stage = self._start_images(plan)
        shown = image_stage.parts if image_stage else []
        encoders = [*text_stage.encoders, *shown, *filter(None, [parts.encoder])]
        stepping = [*parts.controlnets, denoiser]
        decodes = is_last and plan.request.output_type != "latent"
        residency.begin([*encoders, *stepping, *[decoder] * is_last])
        ahead = [*(each.of_batch(most) for each in stepping), *[decoder.of_batch(1)] * decodes]
        residency.compile_ahead(ahead)
        said = text_stage.encode(residency)
        images: Mapping[str, Mapping[str, FloatArray]] = {}
        embeddings = text_stage.report()
        if image_stage is not None:
            images = dict(zip((PROMPT, NEGATIVE), image_stage.encode(residency), strict=True))
            embeddings += image_stage.report()
        conditions = self._condition_all(plan, said, images)
        encoding = residency.lap()
        progress.check()
        source.prepare(residency)
        latents = source.begin(scheduler, generators)
        beginning = residency.lap()
        progress.check()
        check_latents(latents, plan, progress.done, progress.total)
        timesteps = np.array(scheduler.timesteps, np.float32) / np.float32(self.timestep_unit)
        steps: list[float] = []
        with self._lend_denoiser(parts, residency) as session:
            residency.lap()
            handles = _condition(session, conditions, timesteps, {})
            prologue = residency.lap()
            for index, timestep in enumerate(scheduler.timesteps):
                progress.check()
                residency.lap()
                handles = _condition(session, conditions, timesteps, handles)
                scaled = scheduler.scale_model_input(latents, timestep)
                residuals = {
                    side: self._bring_residuals(
                        plan, index, denoising.steps, negative=side == NEGATIVE
                    )
                    for side in self._list_sides(plan, conditions)
                }
                rows = [
                    Row(handles[each], sample, float(timesteps[index]), residuals[side])
                    for side, own in self._list_sides(plan, conditions).items()
                    for each, sample in zip(own, source.extend(side, scaled), strict=True)
                ]
                # Engines may change, and pictures of different sizes or texts of different lengths
                # may have one session.
                kind = None
                if self._keeps_rows_apart:
                    kind = session, plan.height, plan.width, _measure(conditions)
                predicted = yield Predict(session, rows, most, kind)
                assert predicted is not None  # a driver answers
                guided = self._guide(plan, predicted)
                preview = self._note_preview(plan, scheduler, float(timestep), latents, guided)
                latents = scheduler.step(
                    guided,
                    timestep,
                    latents,
                    noise=lambda: _draw(generators, plan.latent_shape),
                )
                latents = source.hold(scheduler, index, latents)
                latents, conditions = self._call_back(
                    plan, progress.done, float(timestep), latents, conditions
                )
                progress.done += 1
                check_latents(latents, plan, progress.done, progress.total)
                steps.append(residency.lap())
                event = StepEvent(
                    progress.done,
                    progress.total,
                    float(timestep),
                    latents,
                    steps[-1],
                    preview=preview,
                )
                if progress.done < progress.total:
                    yield event
        timings = StageTimings(0.0, encoding, prologue, tuple(steps), 0.0, 0.0, beginning)
        return Denoised(denoising, latents, source, generators, embeddings, timings, event)

    def _enlarge(
        self, before: Denoised, plan: PlanT, parts: Parts, residency: Residency
    ) -> LatentSource:
        """Enlarge what the first pass has drawn, for a second one over it."""
        first = before.denoising.plan
        assert plan.given is not None  # a second pass is image to image
        if not plan.given.is_encoded:
            scale, latents = self._vae.config.downscale, self._unpack(first, before.latents)
            enlarged = enlarge_latents(latents, plan.height // scale, plan.width // scale)
            draw = partial(self._draw_latents, plan)
            return NoisedSource(draw, self._pack(enlarged))
        pictures = to_pil(denormalize(self._decode(first, before.latents, residency)))
        images = enlarge_pictures(pictures, Size(plan.width, plan.height))
        given = replace(plan.given, images=images, chosen=tuple(range(len(images))))
        return self._make_source(replace(plan, given=given), parts)

    def _list_all_texts(self, plan: PlanT) -> dict[tuple[str, str], Texts]:
        sides = (PROMPT, NEGATIVE) if plan.is_guided else (PROMPT,)
        return {
            (side, name): texts
            for side in sides
            for name, texts in self._list_texts(plan, negative=side == NEGATIVE).items()
        }

    def _condition_all(
        self,
        plan: PlanT,
        said: Mapping[tuple[str, str], Sequence[FloatArray]],
        shown: Mapping[str, Mapping[str, FloatArray]],
    ) -> Sides:
        """Make each picture's conditioning: one for all pictures with the same texts."""
        # As in diffusers, the rows of the negative prompts come first.
        sides = (NEGATIVE, PROMPT) if plan.is_guided else (PROMPT,)
        conditions: dict[str, list[Conditioning]] = {side: [] for side in sides}
        pictures = name_pictures(plan.control.normalize()) if plan.control else {}
        for side, conditionings in conditions.items():
            known: dict[tuple[int, ...], Conditioning] = {}
            for picture in range(len(plan.seeds)):
                own = {name: rows[picture] for (of, name), rows in said.items() if of == side}
                key = tuple(map(id, own.values()))
                if key not in known:
                    rows = {name: values[None] for name, values in own.items()}
                    tensors = self._condition(plan, rows, negative=side == NEGATIVE)
                    tensors = {**tensors, **shown.get(side, {}), **pictures}
                    known[key] = Conditioning(tensors)
                conditionings.append(known[key])
        return conditions

    def _list_sides(self, plan: PlanT, conditions: Sides) -> Sides:
        """List the conditionings of all rows: where pictures guide, too, some have none of both."""
        if plan.image_guidance_scale is None or not plan.is_guided:
            return conditions
        return {UNCONDITIONAL: conditions[NEGATIVE], **conditions}

    def _note_preview(
        self,
        plan: PlanT,
        scheduler: Scheduler[Any],
        timestep: float,
        latents: FloatArray,
        predicted: FloatArray,
    ) -> Callable[[], list[Image.Image]] | None:
        """Note what a preview of a step is made of; ``None`` where there are none."""
        if not self._has_previews:
            return None
        decode = partial(self._decode_preview, plan)
        return Preview.of(decode, scheduler, timestep, latents, predicted).draw

    def _guide(self, plan: PlanT, predicted: FloatArray) -> FloatArray:
        if not plan.is_guided:
            return predicted
        rescale = plan.request.guidance_rescale
        if plan.image_guidance_scale is not None:
            return guide_twice(predicted, plan.guidance_scale, plan.image_guidance_scale, rescale)
        negative, positive = np.split(predicted, 2)
        return guide(negative, positive, plan.guidance[1], rescale)

    def _call_back(
        self, plan: PlanT, index: int, timestep: float, latents: FloatArray, conditions: Sides
    ) -> tuple[FloatArray, Sides]:
        callback = plan.request.callback_on_step_end
        if callback is None:
            return latents, conditions
        tensors: dict[str, Any] = {"latents": latents, PROMPT: None, NEGATIVE: None}
        for side, conditionings in conditions.items():
            tensors[side] = np.concatenate([each.tensors[_FEATURES] for each in conditionings])
        chosen = {name: tensors[name] for name in plan.request.callback_on_step_end_tensor_inputs}
        tensors |= read_replacements(callback(self, index, timestep, chosen), tensors)
        # Changes in place count as well.
        return tensors["latents"], {
            side: [
                each.change(features)
                for each, features in zip(conditionings, tensors[side], strict=True)
            ]
            for side, conditionings in conditions.items()
        }

    def _finish(
        self,
        denoisings: Sequence[Denoising[Any]],
        source: LatentSource,
        decoded: FloatArray,
        embeddings: Sequence[EmbeddingReport],
    ) -> list[Image.Image] | FloatArray:
        plan = denoisings[0].plan
        colours = source.finish(denormalize(decoded))
        if plan.request.output_type == "np":
            return colours
        images = to_pil(colours)
        run = self._describe_run(plan, embeddings)
        for index, image in enumerate(images):
            given = self._describe_given(plan, index)
            write_metadata(image, plan.settings(index), {**run, **given})
        return images

    def _describe_given(self, plan: PlanT, index: int) -> dict[str, Any]:
        """Describe what a request adds to its settings, for the metadata of a picture."""
        given = {"scheduler": self._name_scheduler(plan)}
        if plan.request.latents is not None:
            given["latents"] = "given by the caller; the settings alone do not make them again"
        pictures = plan.given.describe(index) if plan.given else {}
        return {**given, **pictures, **self._describe_control(plan)}


def _condition(
    session: Session, conditions: Sides, timesteps: FloatArray, known: Mapping[Conditioning, Handle]
) -> dict[Conditioning, Handle]:
    """Condition the session, but for conditionings that have handles already."""
    return {
        each: known.get(each) or session.condition(each.tensors, timesteps.tolist())
        for each in dict.fromkeys(chain(*conditions.values()))
    }


def _measure(conditions: Sides) -> tuple[tuple[int, ...], ...]:
    """Measure the shapes of conditionings, which are the same for all of a request."""
    first = next(iter(conditions.values()))[0]
    return tuple(each.shape for each in first.tensors.values())


def _draw(generators: Sequence[TorchGenerator], shape: tuple[int, ...]) -> FloatArray:
    """Draw noise, each picture's share from its own stream."""
    return np.stack([generator.randn(shape) for generator in generators])
