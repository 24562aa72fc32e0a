"""The adapter of this library's own pipeline."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from fastdeploy_diffusion.benchmark.roofline.peaks import measure_peaks
from fastdeploy_diffusion.benchmark.roofline.survey import survey_component
from fastdeploy_diffusion.compiler.build import ComponentBuild
from fastdeploy_diffusion.compiler.calibration import record_calibration
from fastdeploy_diffusion.compiler.int8_effort import plan_effort
from fastdeploy_diffusion.compiler.pass_tester import PassTester
from fastdeploy_diffusion.compiler.turns import TurnTimings
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.passes.registry import choose_passes, pass_names
from fastdeploy_diffusion.pipelines.opening import open_pipeline
from fastdeploy_diffusion.predictors.build_cache import open_cache
from fastdeploy_diffusion.requests.request import GenerationRequest


class Painter:
    """Draws with the pipeline of the checkpoint's family.

    Args:
        task: A `Task` as JSON.
    """

    def __init__(self, task: dict[str, Any]) -> None:
        self._task = task
        config = DiffusionConfig(**task["config"])
        self.pipeline = open_pipeline(config)
        report = self.pipeline.build(task["height"], task["width"])
        self._cache = open_cache(config)
        # A cold load has built everything; kept or not, only the engine's own rule counts here.
        self.keeps_builds = bool(self._cache and self._cache.entries())
        self._report = report

    def describe(self) -> dict[str, Any]:
        """Describe the engines, their proofs, and the kept builds in use."""
        entries = self._cache.entries() if self._cache else []
        digests = {str(each.ingredients.get("component")): each.digest for each in entries}
        report = asdict(self.pipeline.report)
        del report["model"]  # a path of this machine
        components = [
            {**each, "artifact": digests.get(each["name"])} for each in report.pop("components")
        ]
        return {**report, "components": components}

    def calibrate(self) -> str:
        """Draw the calibration's prompts; returns the folder of what networks were given."""
        assert self._cache is not None  # `Workplace` names one
        size = self._task["width"], self._task["height"]
        effort = plan_effort(self.pipeline)
        made = record_calibration(
            self.pipeline,
            effort.prompts.calibrating,
            size,
            self._cache.root,
            lambda what, done, count: None,
            steps=effort.recorded_steps,
        )
        return str(made.folder)

    def ablate(self) -> list[dict[str, Any]]:
        """Try each pass alone and all together on each component, in turns with none at all.

        All together are those that leave the picture as it is.
        """
        trials: list[dict[str, Any]] = []
        passes = choose_passes(pass_names())
        for build in self.pipeline.plan_builds(self._task["height"], self._task["width"]):
            with PassTester(build, measure=True) as tester:
                for each in passes:
                    trial = tester.try_pass(each)
                    if trial.timings:
                        trials.append(_describe(build, each.name, trial.error, trial.timings))
                exact = [each for each in passes if not each.changes_picture]
                error, timings = tester.build_with(exact)
                if timings:
                    trials.append(_describe(build, "all", error, timings))
        return trials

    def survey(self, batch: int) -> list[dict[str, Any]]:
        """Measure the peaks of each engine that runs here, and how near each component comes."""
        surveys, peaks = [], {}
        self.pipeline.close()  # its memory is for the builds to come
        for build in self.pipeline.plan_builds(self._task["height"], self._task["width"]):
            placement = build.placement
            key = (placement.engine.name, placement.spec.precision)
            if key not in peaks:
                peaks[key] = measure_peaks(placement)
            rows = {**build.sizes, "batch": batch * build.sizes["batch"]}
            survey = survey_component(replace(build, sizes=rows), self._cache)
            surveys.append({**survey, "peaks": peaks[key]})
        return surveys

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], steps: int
    ) -> tuple[Any, dict[str, Any]]:
        """Draw a picture of each prompt."""
        request = GenerationRequest(
            prompt=list(prompts),
            seed=list(seeds),
            height=self._task["height"],
            width=self._task["width"],
            num_inference_steps=steps,
            guidance_scale=self._task["guidance_scale"],
        )
        result = self.pipeline.generate(request)
        stages = asdict(result.timings)
        stages["step"] = stages.pop("steps")
        del stages["prepare"]
        return result.images, stages


def _describe(
    build: ComponentBuild, passes: str, error: float | None, timings: TurnTimings
) -> dict[str, Any]:
    return {"component": build.name, "passes": passes, "error": error, **asdict(timings)}
