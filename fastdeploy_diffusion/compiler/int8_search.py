"""The choice of layers for int8: as many as the pictures bear.

    record → ranges → cost of each block → draw held-out prompts → give blocks back → …

A decoder is judged by itself first, on the latents of float32. Then whole pictures are drawn, and
blocks go back to floating point, the costliest first, until the mean PSNR to float32 is what was
asked for. In memory are only the networks that run: a pipeline that has drawn is closed, and a
trial runs in place of a network, not beside it.
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
from fastdeploy_diffusion.compiler.calibration_prompts import CalibrationPrompts
from fastdeploy_diffusion.compiler.int8_costs import find_costs
from fastdeploy_diffusion.compiler.int8_part import Part
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
    pipeline: DiffusionPredictor[Any], prompts: CalibrationPrompts, task: str, show: Show
) -> Pictures:
    """Draw the held-out prompts, the same pictures each time; (B, H, W, 3) uint8.

    Args:
        show: Called with the task before each picture.
    """

    def draw(index: int, prompt: str) -> Any:
        show(task, index, len(prompts.held_out))
        return pipeline.generate(prompt, seed=SEED + index, output_type="np").images

    return _to_bytes(draw(*each) for each in enumerate(prompts.held_out))


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
    config = pipeline.config.model_copy(update=changes)
    with type(pipeline)(config, checkpoint=pipeline.checkpoint) as opened:
        yield opened


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


def find_fewest(measure: Callable[[int], float], errors: Sequence[float], target: float) -> int:
    """Find how few blocks have to go back; all of them, where nothing less is enough.

    Args:
        measure: Gives the PSNR with that many of the costliest blocks given back.
        errors: Of the blocks, the costliest first. Their squares add up, which gives a first guess.
        target: The PSNR to reach.
    """
    reached = measure(0)
    if reached >= target:
        return 0
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
        prompts: CalibrationPrompts,
        cache: ArtifactCache,
        show: Show,
        *,
        weights: WeightStore | None = None,
        symmetric: bool = False,
    ) -> None:
        self._pipeline, self._components, self._prompts = pipeline, components, prompts
        self._cache, self._show = cache, show
        self._weights, self._symmetric = weights, symmetric
        settings = pipeline.describe_request(GenerationRequest(prompt=""))
        self._size = settings["width"], settings["height"]
        self._steps: int = settings["num_inference_steps"]
        self._target = find_target(pipeline, self._steps)
        self._float = _choose_float(components)
        self._float_psnr = _SAME

    def run(self) -> dict[str, Choice]:
        """Search, and let the pipeline run as was chosen; raises as `quantize_pipeline`."""
        with open_like(self._pipeline, "fp32") as exact:
            held_out = self._record(exact, self._prompts.held_out, keeps_outputs=True)
        wanted = _to_bytes(denormalize(each["images"]) for each in held_out.outputs(_DECODER))
        with ExitStack() as opened:
            drawer = opened.enter_context(open_like(self._pipeline, self._float))
            self._float_psnr = self._measure(drawer, wanted, f"drawing in {self._float}").psnr
            parts = self._open_parts(drawer, held_out, opened)
            for part in parts:
                if part.name == _DECODER:
                    self._fit_decoder(part, held_out, wanted)
            self._fit_pictures(drawer, parts, wanted)
        return self._settle(parts, wanted)

    def _record(
        self, pipeline: DiffusionPredictor[Any], prompts: Sequence[str], **options: bool
    ) -> Calibration:
        root = self._cache.root
        return record_calibration(pipeline, prompts, self._size, root, self._show, **options)

    def _open_parts(
        self, drawer: DiffusionPredictor[Any], held_out: Calibration, opened: ExitStack
    ) -> list[Part]:
        """Export the components, measure their ranges, and the cost of each block."""
        # Weights alone need no ranges.
        whole = [each for each in self._components if each.placement.spec.precision == INT8]
        if not whole:
            return []
        recorded = self._record(drawer, self._prompts.calibrating)
        drawer.close()  # trials need the memory
        width, height = self._size
        builds = {each.name: each for each in self._pipeline.plan_builds(height, width)}
        parts = []
        for component in whole:
            trials = opened.enter_context(open_trials(builds[component.name], self._weights))
            parts.append(part := Part(component, trials))
            opened.callback(part.close)
            find_costs(part, recorded, held_out, self._cache, self._show, symmetric=self._symmetric)
        return parts

    def _fit_decoder(self, part: Part, held_out: Calibration, wanted: Pictures) -> None:
        """Return blocks of the decoder to floating point until it alone reaches its target PSNR."""

        def measure(kept: int) -> float:
            part.kept = kept
            session = part.start()
            task = f"{part.name} in int8, {kept} of {len(part.blocks)} blocks back"
            latents = tell(self._show, task, held_out, _DECODER)
            images = _to_bytes(denormalize(session.run(**each)["images"]) for each in latents)
            part.own_psnr = compare(images, wanted, 1).psnr
            return part.own_psnr

        errors = [each.error for each in part.blocks]
        part.kept = find_fewest(measure, errors, self._target + DECODER_MARGIN)
        if not part.is_refused:
            measure(part.kept)

    def _fit_pictures(
        self, drawer: DiffusionPredictor[Any], parts: Sequence[Part], wanted: Pictures
    ) -> None:
        """Return blocks of the others to floating point until pictures reach the target PSNR."""
        ranked = sorted(
            ((each.error, part) for part in parts if part.name != _DECODER for each in part.blocks),
            key=lambda each: -each[0],
        )

        def give_back(kept: int) -> None:
            counts = Counter(id(part) for _, part in ranked[:kept])
            for _, part in ranked:
                part.kept = counts[id(part)]

        def measure(kept: int) -> float:
            give_back(kept)
            task = f"drawing in int8, {kept} of {len(ranked)} blocks back"
            tried = [part for part in parts if not part.is_refused]
            for part in tried:
                drawer.component(part.name).close()  # it may have run before
            trials = {part.name: part.start() for part in tried}
            with replace_sessions(drawer, trials):
                return self._measure(drawer, wanted, task).psnr

        if ranked and self._float_psnr < self._target:
            give_back(len(ranked))
        elif ranked:
            give_back(find_fewest(measure, [error for error, _ in ranked], self._target))

    def _measure(
        self, pipeline: DiffusionPredictor[Any], wanted: Pictures, task: str
    ) -> PictureQuality:
        drawn = draw_held_out(pipeline, self._prompts, task, self._show)
        return compare(drawn, wanted, self._steps)

    def _settle(self, parts: Sequence[Part], wanted: Pictures) -> dict[str, Choice]:
        """Measure the final builds; components below the target PSNR are refused int8."""
        refusals: dict[str, str] = {}
        own = [part for part in parts if part.name != _DECODER]
        for retry in range(_MOST_RETRIES + 1):
            for part in parts:
                if not part.is_refused:
                    part.component.quantize(part.quantization)
                elif part.name not in refusals:
                    refusals[part.name] = self._explain(part.own_psnr)
                    part.component.refuse_precision(refusals[part.name])
            quality = self._measure(self._pipeline, wanted, _LAST_TASK)
            if quality.psnr >= self._target or all(part.is_refused for part in own):
                break
            for part in own:  # builds differ a little from trials
                part.kept = part.kept + 1 if retry < _MOST_RETRIES - 1 else len(part.blocks)
        if quality.psnr < self._target:
            for component in list_quantized(self._pipeline):  # weights alone, or the decoder
                refusals[component.name] = self._explain(quality.psnr)
                component.refuse_precision(refusals[component.name])
            quality = self._measure(self._pipeline, wanted, _LAST_TASK)
        choices = {}
        for component in self._components:
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
            refusal = refusals.get(component.name, "")
            choices[component.name] = Choice(quantization, report, refusal)
            component.note_int8(report)
        return choices

    def _explain(self, psnr: float | None) -> str:
        if self._float_psnr < self._target:
            return (
                f"the target of {self._target:g} dB is not reached in {self._float}, either, whose "
                f"pictures have a PSNR of {self._float_psnr:.1f} dB to float32"
            )
        reached = "" if psnr is None else f", and {psnr:.1f} dB are reached"
        return f"too much is lost in int8: the target is {self._target:g} dB{reached}"


def list_quantized(pipeline: DiffusionPredictor[Any]) -> list[BuiltComponent]:
    """List the components in int8 that are built here."""
    """List the components in int8; they are built here."""
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
