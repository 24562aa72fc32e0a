"""The base of all families' pipelines: requests in, pictures out."""

import os
import threading
import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from PIL import Image
from typing_extensions import Self

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.pictures_in import Size
from fastdeploy_diffusion.predictors.adapting_methods import AdaptingMethods
from fastdeploy_diffusion.predictors.building_methods import BuildingMethods
from fastdeploy_diffusion.predictors.component import Component, Parts
from fastdeploy_diffusion.predictors.denoising import Denoising
from fastdeploy_diffusion.predictors.drawing_methods import DrawingMethods
from fastdeploy_diffusion.predictors.drivers import BATCH_PIXELS, Generation, RequestBatch
from fastdeploy_diffusion.predictors.embedding_cache import open_embedding_cache
from fastdeploy_diffusion.predictors.latent_source import LatentSource, make_source
from fastdeploy_diffusion.predictors.loop import FloatArray, Loop, PlanT
from fastdeploy_diffusion.predictors.memory_budget import MemoryBudget
from fastdeploy_diffusion.predictors.memory_need import (
    Estimate,
    MemoryNeed,
    PictureBatch,
    estimate_need,
)
from fastdeploy_diffusion.predictors.open_component import quantize_components
from fastdeploy_diffusion.predictors.preview_decoder import PreviewDecoder
from fastdeploy_diffusion.predictors.residency import RESIDENCIES
from fastdeploy_diffusion.predictors.result import PipelineReport
from fastdeploy_diffusion.predictors.run_description import describe_run
from fastdeploy_diffusion.predictors.texts import EmbeddingReport
from fastdeploy_diffusion.predictors.tiling import run_in_windows_if_needed
from fastdeploy_diffusion.predictors.unknown_names import AnswersUnknownNames
from fastdeploy_diffusion.predictors.vae_encoder import VAEEncoder
from fastdeploy_diffusion.request_fields import WEIGHTED
from fastdeploy_diffusion.requests.hires import request_second
from fastdeploy_diffusion.requests.model_limits import ModelLimits
from fastdeploy_diffusion.requests.request import GenerationRequest, make_request
from fastdeploy_diffusion.runtime.session_pool import share_memory
from fastdeploy_diffusion.schedulers.base import Scheduler
from fastdeploy_diffusion.shown import show

if TYPE_CHECKING:
    pass


class DiffusionPredictor(
    AnswersUnknownNames, AdaptingMethods, DrawingMethods, BuildingMethods[PlanT]
):
    """Text to image with a checkpoint; each family opens its own components."""

    # Set by the family.
    _limits: ModelLimits
    _scheduler_name: str
    _edit_scale: float = 1.0  # of the latents of pictures that are edited by instructions

    def __init__(self, config: DiffusionConfig, checkpoint: Checkpoint) -> None:
        self._config = config
        self._checkpoint = checkpoint
        self._embeddings = open_embedding_cache(config)
        self._budget = MemoryBudget(config.memory)
        self._cancellations = 0
        self._digest: str | None = None
        self._components: tuple[Component, ...] = ()
        self._adapters = {}
        self._encoder: VAEEncoder | None = None
        self._opening = threading.Lock()
        self._quantizing = threading.RLock()
        self._previews = PreviewDecoder(checkpoint, config)
        self._is_quantized = False

    def _join(self, *components: Component) -> None:
        """Set a family's components in running order; the last are the denoiser and the VAE."""
        self._components = components
        share_memory(each.pool for each in components)

    def open_encoder(self) -> VAEEncoder:
        """Open the VAE's encoder, once, for requests with pictures; raises as `VAEEncoder`."""
        with self._opening:
            if self._encoder is None:
                encoder = VAEEncoder(self._checkpoint, self._config, self._vae.config)
                encoder.component.check_weights()
                self._encoder = encoder
                first = len(self._components) - len(self._list_stepping()) - 1
                texts, later = self._components[:first], self._components[first:]
                self._join(*texts, encoder.component, *later)
            return self._encoder

    @classmethod
    def from_pretrained(cls, model_path: str | os.PathLike[str], **options: Any) -> Self:
        """Open a checkpoint as in diffusers, like the constructor with a path and options."""
        return cls(model_path, **options)  # type: ignore[arg-type]

    @classmethod
    def from_single_file(cls, model_path: str | os.PathLike[str], **options: Any) -> Self:
        """Open a ``.safetensors`` file as in diffusers; it mostly needs ``tokenizer_path``, too."""
        return cls(model_path, **options)  # type: ignore[arg-type]

    @property
    def checkpoint(self) -> Checkpoint:
        """The open checkpoint."""
        return self._checkpoint

    @property
    def config(self) -> DiffusionConfig:
        """The configuration that the pipeline was made from."""
        return self._config

    @property
    def refiner(self) -> "DiffusionPredictor[Any] | None":
        """The pipeline that draws the last steps; ``None`` where this one draws all."""
        return None

    def component(self, name: str) -> Component:
        """Look up a component by its name in the report: ``denoiser``."""
        return {each.name: each for each in self._components}[name]

    def list_calibrated(self) -> list[Component]:
        """List the components that text to image runs, by which int8 is calibrated."""
        return [each for each in self._components if each.is_calibrated]

    def list_added(self) -> list[Component]:
        """List the networks that are added to the checkpoint's: ControlNets, IP-Adapters."""
        return []

    def sample_inputs(self, index: int) -> dict[str, Any]:
        """Make the settings of a request that the added networks need, to calibrate with."""
        return {}

    def name_added(self) -> dict[str, list[dict[str, str]]]:
        """Name the networks that are added to the checkpoint's, where a bundle holds them.

        Returns:
            By their option, the paths of each of its sections in a bundle.
        """
        return {}

    @property
    def report(self) -> PipelineReport:
        """Engine, device, fallback and proof of each component, as it really runs."""
        return PipelineReport(
            model=str(self._checkpoint.path),
            family=self._checkpoint.family.name,
            scheduler=self._scheduler_name,
            components=tuple(each.report for each in self._components),
            memory=self.config.memory,
        )

    def __repr__(self) -> str:
        """Name the model, and what each component runs on."""
        report = self.report
        components = ", ".join(
            f"{each.name}: {each.engine} on {each.device} in {each.precision}"
            for each in report.components
        )
        return f"<{type(self).__name__} {report.model} ({report.family}); {components}>"

    def close(self) -> None:
        """Free the engines' memory; a later request builds again."""
        for each in self._components:
            each.close()
        self._previews.close()
        self._embeddings.clear()

    def __enter__(self) -> Self:
        """Return the pipeline, which is closed when the block ends."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Free the engines' memory."""
        self.close()

    def stream(
        self, request: GenerationRequest | str | Sequence[str], **settings: Any
    ) -> Generation:
        """Serve a request step by step: iterate for the events; the last one carries the result.

        The request is checked here; work begins with the first event that is asked for. Stop early
        by closing the returned iterator, or from another thread with its ``cancel``. Arguments and
        errors are those of ``generate``.
        """
        return self._begin(request, settings)

    def batch(self, pictures: int | None = None) -> RequestBatch:
        """Serve many requests at once: their rows run together, each at its own step.

        Each gets the pictures that it gets alone, bit for bit. Where an engine's numbers depend on
        the batch, requests take turns instead, which is a warning.

        Args:
            pictures: Largest number drawn at once, all requests together; by default as many as
                pay and fit into memory.

        Raises:
            RequestError: It is no whole number of 1 or more.
        """
        if pictures is not None and (type(pictures) is not int or pictures < 1):
            raise RequestError(
                f"pictures is {show(pictures)}", allowed="a whole number of 1 or more"
            )
        if not self._keeps_rows_apart:
            denoiser = self._components[-2].report
            warnings.warn(
                f"on {denoiser.engine} ({denoiser.device}) with memory={self.config.memory!r}, "
                "numbers depend on the batch: the requests of this one take turns, so that each "
                "gets the pictures that it gets alone",
                UserWarning,
                stacklevel=2,
            )

        return RequestBatch(partial(self._begin, most=pictures))

    def describe_request(self, request: GenerationRequest) -> dict[str, Any]:
        """Check a request, and fill in defaults; nothing is drawn.

        Returns:
            The settings of its first picture; ``None`` for those that the model does not have.

        Raises:
            RequestError: A setting is not allowed.
        """
        return self._plan_drawing(request).settings(0)

    def count_calls(self, request: GenerationRequest) -> int:
        """Count the denoiser's calls for a request, a refiner's left out; raises `RequestError`."""
        return len(self._start_scheduler(self._plan_drawing(request)).timesteps)

    def describe_picture(self, request: GenerationRequest) -> dict[str, Any]:
        """Describe the first picture of a request as its metadata will; nothing is drawn.

        Returns:
            Its "settings" that are given, and its "run", of which the components are described as
            they are placed now.

        Raises:
            RequestError: A setting is not allowed.
        """
        plan = self._plan_drawing(request)
        settings = {name: each for name, each in plan.settings(0).items() if each is not None}
        run = {**self._describe_run(plan, ()), **self._describe_given(plan, 0)}
        return {"settings": settings, "run": run}

    def choose_batch(self, request: GenerationRequest) -> int:
        """Choose how many pictures to draw at once for requests with these settings.

        As many as pay: a device that is busy with one gains nothing by a second one. No more than
        fit into memory. And one, unless the engine is known to draw each as it draws it alone.

        Raises:
            RequestError: A setting is not allowed.
        """
        one = replace(request, num_images_per_prompt=1, latents=None, seed=0)
        return self._limit_pictures(self._plan_drawing(one))

    def _limit_pictures(self, plan: PlanT, most: int | None = None) -> int:
        if plan.hires is not None:
            plan = plan.second  # which is larger
        if most is None:
            pays = BATCH_PIXELS // (plan.height * plan.width)
            most = max(pays, 1) if self._keeps_rows_apart else 1
        if self._limits.ranges is not None:
            rows = self._limits.ranges.batch.max // self._count_rows(plan)
            most = max(min(most, rows), 1)
        batch, estimate = self._describe_need(plan)
        return self._budget.limit(batch._replace(pictures=most), estimate)

    def quantize(self, show: Callable[[str, int, int], None] | None = None) -> PipelineReport:
        """Calibrate the components in int8, and choose the layers for it, if that is not kept.

        Building and drawing do it, too; it draws dozens of pictures. Where nothing is in int8, this
        does nothing.

        Args:
            show: Called with each task, how many of its parts are done, and the number of all.

        Raises:
            ConfigError: Nothing can be calibrated.
            AccuracyError: The quality asked for is not reached, and the precision is pinned.
        """
        with self._quantizing:
            if not self._is_quantized:
                self._is_quantized = True  # it draws with this pipeline as well
                try:
                    quantize_components(self, show or (lambda task, done, total: None))
                except BaseException:
                    self._is_quantized = False
                    raise
        return self.report

    def cancel(self) -> None:
        """Stop running requests before their next step; they raise `CancelledError`."""
        self._cancellations += 1

    @abstractmethod
    def _plan(self, request: GenerationRequest) -> PlanT:
        """Check a request."""

    def _plan_drawing(self, request: GenerationRequest) -> PlanT:
        """Check a request, with what the model needs to draw."""
        self._limits.check_kind(
            has_picture=request.image is not None, has_mask=request.mask is not None
        )
        self._limits.check_image_prompt(request.ip_adapter_image is not None)
        plan = self._plan(request)
        return plan if plan.hires is None else replace(plan, second=self._plan_second(plan))

    def _plan_second(self, plan: PlanT) -> PlanT:
        """Check the second pass, which is image to image at a larger size."""
        assert plan.hires is not None  # as the caller checks
        request = request_second(plan, self._limits.multiple)
        try:
            second = self._plan(request)
        except RequestError as error:
            size = Size(request.width or 0, request.height or 0)
            raise RequestError(
                f"the second pass of hires_scale={plan.hires.scale:g} draws {size}, and "
                f"{error.problem}",
                allowed=error.allowed,
                fix=error.fix,
            ) from error
        if plan.hires.upscaler == "lanczos":
            return second
        assert second.given is not None  # it was in the request
        return replace(second, given=replace(second.given, is_encoded=False))

    def _plan_picture(
        self,
        height: int | None,
        width: int | None,
        chunks: int | None = None,
        shown: int | None = None,
    ) -> PlanT:
        syntax = None if chunks is None else WEIGHTED
        settings: dict[str, Any] = {"height": height, "width": width, "prompt_chunks": chunks}
        if shown is not None:
            adapters = len(self._limits.ip_adapter_scales or (1,))
            settings["ip_adapter_image"] = [[Image.new("RGB", (1, 1))] * shown] * adapters
        return self._plan(make_request("", {**settings, "prompt_syntax": syntax}))

    def _require_memory(self, plan: PlanT) -> None:
        """Refuse requests that do not fit into memory, before anything is allocated."""

        def make_room() -> None:
            for part in self._find_parts(plan):
                part.component.pool.drop_idle(but=part.signature)

        batch, estimate = self._describe_need(plan)
        parts = self._find_parts(plan)
        tiled = [part for part in (parts.decoder, parts.encoder) if part is not None]
        run_in_windows_if_needed(tiled, lambda: self._budget.fits(batch, estimate))
        self._budget.require(batch, estimate, self._limits.multiple, make_room)

    def _explain_exhaustion(self, plan: PlanT) -> AbstractContextManager[None]:
        return self._budget.explain_exhaustion(*self._describe_need(plan), self._limits.multiple)

    def _describe_need(self, plan: PlanT) -> tuple[PictureBatch, Estimate]:
        """Make the batch of a plan, and the function that estimates batches like it."""
        refiner = self._find_second(plan) if plan.second is not None else self

        def estimate(batch: PictureBatch, memory: str) -> MemoryNeed:
            _, height, width = batch
            shape = self._limits.shape_latents(height, width)
            like = replace(plan, height=height, width=width, latent_shape=shape)
            parts, rows, alone = self._find_parts(like), self._count_rows(plan), refiner is self
            need = estimate_need(parts, rows, batch, memory, decodes=alone)
            if alone:
                return need
            _, estimate_second = refiner._describe_need(plan.second)
            return need.beside(estimate_second(batch, memory), memory)

        return PictureBatch(len(plan.seeds), plan.height, plan.width), estimate

    def _find_parts(self, plan: PlanT, encoder: bool = False, *, control: bool = False) -> Parts:
        """List the parts of a plan, with the VAE's encoder and all ControlNets on request."""
        parts = self._list_parts(plan)
        if encoder or (plan.given and plan.given.is_encoded):
            parts = replace(parts, encoder=self.open_encoder().like(parts.decoder))
        return parts

    def _make_source(self, plan: PlanT, parts: Parts) -> LatentSource:
        draw, limits = partial(self._draw_latents, plan), self._limits
        encoding = None if parts.encoder is None else (self.open_encoder(), parts.encoder)
        return make_source(
            plan,
            draw,
            self._pack,
            encoding,
            extends=limits.needs_mask or bool(limits.edits),
            edit_scale=self._edit_scale,
            is_packed=limits.is_packed,
        )

    def _start_scheduler(self, plan: PlanT) -> Scheduler[Any]:
        """Make a scheduler for this request alone, at its first step."""
        scheduler = self._plan_steps(plan)
        scheduler.set_begin_index(scheduler.order * plan.skipped_steps)
        return scheduler

    @abstractmethod
    def _plan_steps(self, plan: PlanT) -> Scheduler[Any]:
        """Make a scheduler, with the timesteps of all steps set."""

    def _begin(
        self,
        request: GenerationRequest | str | Sequence[str],
        settings: dict[str, Any],
        batch: RequestBatch | None = None,
        most: int | None = None,
    ) -> Generation:
        """Check a request, and begin to serve it, with ``batch`` or on its own."""
        if not isinstance(request, GenerationRequest):
            request = make_request(request, settings, self.request_class)
        elif settings:
            raise RequestError(
                f"a request is given, and settings beside it: {', '.join(settings)}",
                allowed="a request with its settings inside, or a prompt with settings",
                fix="dataclasses.replace(request, …)",
            )
        plan = self._plan_drawing(request)
        denoisings = self._list_denoisings(plan)
        cancelled = threading.Event()
        loop = self._run(denoisings, cancelled)
        if batch is None:
            return Generation(loop, cancelled)
        return Generation(loop, cancelled, batch, len(plan.seeds), self._limit_pictures(plan, most))

    def _list_denoisings(self, plan: PlanT) -> list[Denoising[Any]]:
        """List what a request runs one after another, each with a scheduler of its own.

        Raises:
            ResourceError: One of them does not fit into memory.
        """
        self._require_memory(plan)
        own: Denoising[Any] = Denoising(self, plan, self._start_scheduler(plan))
        if plan.second is None:
            return [own]
        return [own, *self._find_second(plan)._list_denoisings(plan.second)]

    def _find_second(self, plan: PlanT) -> "DiffusionPredictor[Any]":
        """Find who runs the second pass of a plan."""
        return self

    def _run(self, denoisings: Sequence[Denoising[Any]], cancelled: threading.Event) -> Loop:
        plan = denoisings[0].plan
        self.quantize()
        # Sessions are given back when the iterator ends, however it does.
        with self._explain_exhaustion(plan), RESIDENCIES[self.config.memory]() as residency:
            yield from self._draw(denoisings, residency, cancelled)

    @property
    def _has_previews(self) -> bool:
        return self._config.tiny_vae_path is not None

    def _decode_preview(self, plan: PlanT, latents: FloatArray) -> list[Image.Image]:
        signature = self._list_parts(plan).decoder.signature
        return self._previews.decode(signature, self._unpack(plan, latents))

    @property
    def _keeps_rows_apart(self) -> bool:
        # Weights that are inputs, engines multiply in another order for another batch.
        keep_apart = all(each.keeps_rows_apart for each in self._list_stepping())
        return keep_apart and self.config.memory != "streamed"

    def _list_stepping(self) -> list[Component]:
        """List the components that run at every step."""
        return [self._components[-2]]

    def _check_weights(self) -> None:
        """Refuse weights that are not their networks', and load the configuration's adapters."""
        for each in self._components:
            each.check_weights()
        self._load_configured_adapters()

    def _name_scheduler(self, plan: PlanT) -> str:
        return self._scheduler_name

    def _describe_run(self, plan: PlanT, embeddings: Sequence[EmbeddingReport]) -> dict[str, Any]:
        self._digest = self._digest or self._checkpoint.digest()
        return {
            "model": self._checkpoint.name,
            "model_digest": self._digest,
            **({"parts": parts} if (parts := self._checkpoint.part_names) else {}),
            "memory": self.config.memory,
            **({"tiny_vae_digest": digest} if (digest := self._vae.tiny_digest) else {}),
            **self._describe_adapters(),
            **describe_run([part.component.report for part in self._find_parts(plan)]),
            "embeddings": [asdict(each) for each in embeddings],
        }
