"""The choice of layers for int8: as many as the pictures bear.

    record → ranges → draw held-out prompts → cost of each block → give blocks back → draw …

A decoder is judged by itself first, on the latents of float32. Then whole pictures are drawn by
builds in which nothing else has gone back, which mostly ends the search. Where their mean PSNR to
float32 is below what was asked for, the cost of each block is measured, and blocks go back to
floating point, the costliest first. In memory are only the networks that run: a pipeline that has
drawn is closed, and a trial runs in place of a network, not beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdeploy_diffusion.compiler.calibration import (
    SEED,
    Calibration,
    Show,
    record_calibration,
    replace_sessions,
    tell,
)
from fastdeploy_diffusion.compiler.int8_costs import find_costs, find_ranges
from fastdeploy_diffusion.compiler.int8_effort import Effort
from fastdeploy_diffusion.compiler.int8_part import Part, list_errors
from fastdeploy_diffusion.compiler.quantizing import open_trials
from fastdeploy_diffusion.config.diffusion_config import COMPONENTS
from fastdeploy_diffusion.config.option_sections import EmbeddingCacheConfig
from fastdeploy_diffusion.images import denormalize
from fastdeploy_diffusion.int8_report import Int8Report, PictureQuality
from fastdeploy_diffusion.picture_quality import Pictures, measure_psnr, measure_ssim
from fastdeploy_diffusion.precision import INT8, PRECISIONS
from fastdeploy_diffusion.quantization import Quantization
from fastdeploy_diffusion.requests.request import GenerationRequest

if TYPE_CHECKING:
    from fastdeploy_diffusion.compiler.built_component import BuiltComponent
    from fastdeploy_diffusion.config import DiffusionConfig
    from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor
    from fastdeploy_diffusion.runtime.cache import ArtifactCache
    from fastdeploy_diffusion.runtime.weight_store import WeightStore

TARGET, FEW_STEPS_TARGET = 30.0, 25.0
"""The least mean PSNR to float32, in dB, where ``int8_quality`` says nothing."""
FEW_STEPS = 8
_DECODER = "vae_decoder"
DECODER_MARGIN = 5.0  # dB above the target: a third of the error that the whole may have
_SAME = 100.0  # dB of pictures that do not differ in any pixel
_LAST_TASK = "drawing with the builds that were chosen"
_MOST_TRIES = 7
_MOST_RETRIES = 3


@dataclass(frozen=True)
class Choice:
    """What was found for a component.

    Args:
        report: Of what it costs.
        refusal: Why the component does not run in int8; empty if it does.
    """

    quantization: Quantization
    report: Int8Report
    refusal: str = ""


def draw_held_out(
    pipeline: DiffusionPredictor[Any], effort: Effort, task: str, show: Show
) -> Pictures:
    """Draw the held-out prompts, the same pictures each time; (B, H, W, 3) uint8.

    Args:
        show: Called with the task before each picture.
    """

    def draw(index: int, prompt: str) -> Any:
        show(task, index, len(held_out))
        return pipeline.generate(
            prompt,
            seed=SEED + index,
            num_inference_steps=effort.steps,
            output_type="np",
            **pipeline.sample_inputs(index),
        ).images

    held_out = effort.prompts.held_out
    return _to_bytes(draw(*each) for each in enumerate(held_out))


@contextmanager
def open_like(
    pipeline: DiffusionPredictor[Any], precision: str
) -> Iterator[DiffusionPredictor[Any]]:
    """Open the same model on the same engines in another precision, until the block ends.

    It encodes every text anew, so that the text encoders run as often as the others.
    """
    changes: dict[str, Any] = {
        "precision": precision,
        "int8_quality": None,
        "int8_portable": False,
        "embedding_cache": EmbeddingCacheConfig(memory_mib=0),
    }
    for name in COMPONENTS:
        own = getattr(pipeline.config, name)
        changes[name] = own.model_copy(update={"precision": None})
    changes |= change_added(pipeline.config, precision=None)
    config = pipeline.config.model_copy(update=changes)
    with type(pipeline)(config, checkpoint=pipeline.checkpoint) as opened:
        yield opened


def change_added(config: DiffusionConfig, **changes: Any) -> dict[str, Any]:
    """Change options of all added networks, as the options of a configuration."""
    options = {"controlnets": config.controlnets, "ip_adapters": config.ip_adapters}
    return {
        name: tuple(each.model_copy(update=changes) for each in own)
        for name, own in options.items()
    }


def find_target(pipeline: DiffusionPredictor[Any], steps: int) -> float:
    """Find the least mean PSNR that was asked for, or the default for a number of steps, in dB."""
    asked: float | None = pipeline.config.int8_quality
    if asked is not None:
        return asked
    is_short = steps <= FEW_STEPS or "LCM" in pipeline.report.scheduler
    return FEW_STEPS_TARGET if is_short else TARGET


def compare(given: Pictures, wanted: Pictures, steps: int) -> PictureQuality:
    """Compare pictures with those of float32."""
    pairs = [(given[[index]], wanted[[index]]) for index in range(len(wanted))]
    found = [measure_psnr(*pair) for pair in pairs]
    ratios = [_SAME if ratio is None else min(ratio, _SAME) for ratio in found]
    likeness = [measure_ssim(*pair) for pair in pairs]
    return PictureQuality(
        float(np.mean(ratios)), min(ratios), float(np.mean(likeness)), len(wanted), steps
    )


def find_fewest(
    measure: Callable[[int], float], errors: Sequence[float], target: float, reached: float
) -> int:
    """Find how few blocks have to go back; all of them, where nothing less is enough.

    Args:
        measure: Gives the PSNR with that many of the costliest blocks given back.
        errors: Of the blocks, the costliest first. Their squares add up, which gives a first guess.
        target: The PSNR to reach.
        reached: The PSNR with none given back, which is less.
    """
    failing, passing = 0, len(errors)
    squares = np.square(errors)
    allowed = squares.sum() * 10 ** ((reached - target) / 10)
    guess = int(np.searchsorted(np.cumsum(squares), squares.sum() - allowed)) + 1
    for _ in range(_MOST_TRIES):
        if passing - failing <= 1:
            break
        guess = min(max(guess, failing + 1), passing - 1)
        if measure(guess) >= target:
            passing = guess
        else:
            failing = guess
        guess = (failing + passing) // 2
    return passing


class Int8Search:
    """Searches the layers for int8 by what pictures lose.

    Args:
        pipeline: Draws the final pictures, by which the choice is judged.
        components: Those to be quantized.
        cache: Keeps what is recorded.
        weights: Keeps those of trials.
        symmetric: Whether ranges reach as far below zero as above.
    """

    def __init__(
        self,
        pipeline: DiffusionPredictor[Any],
        components: Sequence[BuiltComponent],
        effort: Effort,
        cache: ArtifactCache,
        show: Show,
        *,
        weights: WeightStore | None = None,
        symmetric: bool = False,
    ) -> None:
        self._pipeline, self._components, self._effort = pipeline, components, effort
        self._cache, self._show = cache, show
        self._weights, self._symmetric = weights, symmetric
        settings = pipeline.describe_request(
            GenerationRequest(prompt="", **pipeline.sample_inputs(0))
        )
        self._size = settings["width"], settings["height"]
        self._target = find_target(pipeline, settings["num_inference_steps"])
        self._float = _choose_float(components)
        self._float_psnr: float | None = None
        self._refusals: dict[str, str] = {}

    def run(self) -> dict[str, Choice]:
        """Search, and let the pipeline run as was chosen; raises as `quantize_pipeline`."""
        effort = self._effort
        with open_like(self._pipeline, "fp32") as exact:
            held_out = self._record(
                exact, effort.prompts.held_out, steps=effort.steps, keeps_outputs=True
            )
        wanted = _to_bytes(denormalize(each["images"]) for each in held_out.outputs(_DECODER))
        with ExitStack() as opened:
            drawer = opened.enter_context(open_like(self._pipeline, self._float))
            parts = self._open_parts(drawer, held_out, opened)
            for part in parts:
                if part.name == _DECODER:
                    self._fit_decoder(part, wanted)
                    part.close()
            quality = self._draw_builds(parts, wanted)
            if quality.psnr < self._target:
                self._pipeline.close()
                self._float_psnr = self._measure_float(drawer, wanted)
                self._fit_pictures(drawer, parts, wanted, quality.psnr)
        if quality.psnr < self._target:
            quality = self._settle(parts, wanted, quality)
        return {each.name: self._choose(each, parts, quality) for each in self._components}

    def _record(
        self, pipeline: DiffusionPredictor[Any], prompts: Sequence[str], **options: Any
    ) -> Calibration:
        root = self._cache.root
        return record_calibration(pipeline, prompts, self._size, root, self._show, **options)

    def _open_parts(
        self, drawer: DiffusionPredictor[Any], held_out: Calibration, opened: ExitStack
    ) -> list[Part]:
        """Export the components, and find the ranges of what their layers read."""
        # Weights alone need no ranges.
        whole = [each for each in self._components if each.placement.spec.precision == INT8]
        if not whole:
            return []
        prompts = self._effort.prompts.calibrating
        recorded = self._record(drawer, prompts, steps=self._effort.recorded_steps)
        drawer.close()  # trials need the memory
        width, height = self._size
        builds = {each.name: each for each in self._pipeline.plan_builds(height, width)}
        parts = []
        for component in whole:
            trials = opened.enter_context(open_trials(builds[component.name], self._weights))
            parts.append(part := Part(component, trials, held_out, self._effort.cost_calls))
            opened.callback(part.close)
            find_ranges(part, recorded, self._cache, self._show, symmetric=self._symmetric)
        return parts

    def _fit_decoder(self, part: Part, wanted: Pictures) -> None:
        """Return blocks of the decoder to floating point until it alone reaches its target PSNR."""

        def measure(kept: int) -> float:
            part.kept = kept
            session = part.start()
            task = f"{part.name} in int8, {kept} of {len(part.blocks)} blocks back"
            latents = tell(self._show, task, part.held_out, _DECODER)
            images = _to_bytes(denormalize(session.run(**each)["images"]) for each in latents)
            part.own_psnr = compare(images, wanted, 1).psnr
            return part.own_psnr

        target = self._target + DECODER_MARGIN
        reached = measure(0)
        if reached < target:
            self._find_costs(part)
            part.kept = find_fewest(measure, list_errors(part.blocks), target, reached)
            if not part.is_refused:
                measure(part.kept)

    def _find_costs(self, part: Part) -> None:
        """Find the cost of each block, with nothing else in memory."""
        part.close()
        if part.blocks:
            find_costs(part, self._cache, self._show)

    def _fit_pictures(
        self,
        drawer: DiffusionPredictor[Any],
        parts: Sequence[Part],
        wanted: Pictures,
        reached: float,
    ) -> None:
        """Return blocks of the others to floating point until pictures reach the target PSNR.

        Args:
            reached: With none of them given back.
        """
        own = [part for part in parts if part.name != _DECODER]
        if self._float_psnr is not None and self._float_psnr < self._target:
            for part in own:
                part.kept = len(part.blocks)
            return
        for part in own:
            self._find_costs(part)
        ranked = sorted(
            ((error, part) for part in own for error in list_errors(part.blocks)),
            key=lambda each: -each[0],
        )

        def give_back(kept: int) -> None:
            counts = Counter(id(part) for _, part in ranked[:kept])
            for part in own:
                part.kept = counts[id(part)]

        def measure(kept: int) -> float:
            give_back(kept)
            task = f"drawing in int8, {kept} of {len(ranked)} blocks back"
            tried = [part for part in parts if not part.is_refused]
            for part in parts:  # what ran before, and does not now
                (drawer.component(part.name) if part in tried else part).close()
            trials = {part.name: part.start() for part in tried}
            with replace_sessions(drawer, trials):
                return self._measure(drawer, wanted, task).psnr

        if ranked:
            errors = [error for error, _ in ranked]
            give_back(find_fewest(measure, errors, self._target, reached))

    def _measure(
        self, pipeline: DiffusionPredictor[Any], wanted: Pictures, task: str
    ) -> PictureQuality:
        drawn = draw_held_out(pipeline, self._effort, task, self._show)
        return compare(drawn, wanted, self._effort.steps)

    def _measure_float(self, drawer: DiffusionPredictor[Any], wanted: Pictures) -> float:
        """Measure pictures wholly in floating point; those in float32 are there already."""
        if self._float == "fp32":
            return _SAME
        quality = self._measure(drawer, wanted, f"drawing in {self._float}")
        drawer.close()
        return quality.psnr

    def _draw_builds(self, parts: Sequence[Part], wanted: Pictures) -> PictureQuality:
        """Build what was chosen, and draw; a component that is wholly given back falls back."""
        for part in parts:
            if not part.is_refused:
                part.component.quantize(part.quantization)
            elif part.name not in self._refusals:
                self._refuse(part.component, part.own_psnr)
        return self._measure(self._pipeline, wanted, _LAST_TASK)

    def _settle(
        self, parts: Sequence[Part], wanted: Pictures, quality: PictureQuality
    ) -> PictureQuality:
        """Measure the builds; components below the target PSNR are refused int8.

        Args:
            quality: Of the builds before blocks went back.
        """
        own = [part for part in parts if part.name != _DECODER]
        if own:
            quality = self._draw_builds(parts, wanted)
        for retry in range(_MOST_RETRIES):
            if quality.psnr >= self._target or all(part.is_refused for part in own):
                break
            for part in own:  # builds differ a little from trials
                part.kept = part.kept + 1 if retry < _MOST_RETRIES - 1 else len(part.blocks)
            quality = self._draw_builds(parts, wanted)
        if quality.psnr < self._target:
            for component in list_quantized(self._pipeline):  # weights alone, or the decoder
                self._refuse(component, quality.psnr)
            quality = self._measure(self._pipeline, wanted, _LAST_TASK)
        return quality

    def _choose(
        self, component: BuiltComponent, parts: Sequence[Part], quality: PictureQuality
    ) -> Choice:
        found = next((part for part in parts if part.component is component), None)
        report = Int8Report(quality, self._target, self._float, self._float_psnr)
        quantization = Quantization()
        if found is not None:
            quantization = found.quantization
            report = replace(
                report,
                own_psnr=found.own_psnr,
                blocks=found.list_blocks(),
                sensitive=len(found.sensitive),
            )
        component.note_int8(report)
        return Choice(quantization, report, self._refusals.get(component.name, ""))

    def _refuse(self, component: BuiltComponent, psnr: float | None) -> None:
        self._refusals[component.name] = reason = self._explain(psnr)
        component.refuse_precision(reason)

    def _explain(self, psnr: float | None) -> str:
        if self._float_psnr is not None and self._float_psnr < self._target:
            return (
                f"the target of {self._target:g} dB is not reached in {self._float}, either, whose "
                f"pictures have a PSNR of {self._float_psnr:.1f} dB to float32"
            )
        reached = "" if psnr is None else f", and {psnr:.1f} dB are reached"
        return f"too much is lost in int8: the target is {self._target:g} dB{reached}"


def list_quantized(pipeline: DiffusionPredictor[Any]) -> list[BuiltComponent]:
    """List the components in int8 that are built here."""
    return [
        component  # type: ignore[misc]  # not of a bundle: see quantize_components
        for component in pipeline.list_calibrated()
        if PRECISIONS[component.placement.spec.precision].is_quantized
    ]


def _choose_float(components: Sequence[BuiltComponent]) -> str:
    """Choose the fastest precision without int8 that all of their engines have kernels for."""
    safer = PRECISIONS[INT8].safer
    for precision in safer:
        found = [
            each.placement.engine.supports(replace(each.placement.spec, precision=precision))
            for each in components
        ]
        if all(support.ok and not support.slower for support in found):
            return precision
    return safer[-1]


def _to_bytes(colours: Iterable[Any]) -> Pictures:
    """Join colours, (B, H, W, 3) in [0, 1], and round them as a PNG file does."""
    return np.round(np.concatenate(list(colours)) * 255).astype(np.uint8)
