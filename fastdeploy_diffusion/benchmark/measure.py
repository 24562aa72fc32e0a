"""Measures one case: in processes of its own, first with an empty cache, then with a full one."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastdeploy_diffusion.benchmark.case import OWN, Case
from fastdeploy_diffusion.benchmark.child_process import ChildError, ChildProcess
from fastdeploy_diffusion.benchmark.energy import EnergyMeter
from fastdeploy_diffusion.benchmark.environment import read_device_memory
from fastdeploy_diffusion.benchmark.plan import REFERENCE, describe_reference
from fastdeploy_diffusion.benchmark.result import INTERRUPTED, Missing
from fastdeploy_diffusion.benchmark.row import Judgement, Quality, Row, Samples
from fastdeploy_diffusion.benchmark.shapes_score import SIDE, STEPS, choose_captions, judge_pictures
from fastdeploy_diffusion.benchmark.workplace import Workplace
from fastdeploy_diffusion.picture_quality import Pictures, measure_psnr, measure_ssim


def draw_reference(place: Workplace, case: Case) -> Pictures:
    """Draw a case's work with the Paddle layers in float32.

    Raises:
        ChildError: It failed.
    """
    choice = {name: REFERENCE[name] for name in ("engine", "precision", "device")}
    reference = case.model_copy(update={**choice, "painter": OWN})
    task = place.describe_task(reference)
    threads = {"threads": case.work.threads}
    task["config"] = describe_reference(place.plan.config) | threads
    with place.start(reference) as child:
        child.open(task)
        work, file = case.work, place.folder / "reference.npy"
        child.draw([work.prompt] * work.batch, work.seeds, work.steps, file)
    pictures: Pictures = np.load(file)
    return pictures


def measure_case(place: Workplace, case: Case, reference: Pictures | str) -> Row | Missing:
    """Measure one case; what fails half way keeps what was measured before.

    Args:
        reference: The reference's pictures, or why there are none.
    """
    measurement = _Measurement(place, case, reference)
    reason = measurement.run()
    return measurement.conclude(reason)


class _Measurement:
    """Measurements of a case so far."""

    def __init__(self, place: Workplace, case: Case, reference: Pictures | str) -> None:
        self._place, self._case, self._reference = place, case, reference
        self._samples: dict[str, Any] = {}
        self._settings: dict[str, Any] = {}
        self._pictures: Pictures | None = None
        self._judgement: Judgement | None = None

    def run(self) -> str:
        """Measure; say why it ended before the end, or nothing."""
        try:
            if self._case.is_calibrated:
                self._place.calibrate(self._case)
            self._load_cold()
            with self._place.start(self._case) as child:
                self._load(child)
                self._draw_all(child)
                is_own_size = {self._case.work.width, self._case.work.height} == {SIDE}
                if self._place.plan.is_shapes and is_own_size:
                    self._judge(child)
        except ChildError as error:
            return str(error)
        except KeyboardInterrupt:
            return INTERRUPTED
        return ""

    def conclude(self, reason: str) -> Row | Missing:
        """Make the row, or say why there is none."""
        samples = Samples(**self._samples)
        if isinstance(self._reference, str):
            reason = reason or f"nothing to compare the pictures with: {self._reference}"
        elif self._pictures is not None:
            try:
                quality = self._rate(self._pictures, self._reference)
            except ValueError as error:
                reason = reason or str(error)
            else:
                return Row(
                    case=self._case,
                    samples=samples,
                    quality=quality,
                    settings=self._settings,
                    missing=reason,
                )
        return Missing(case=str(self._case), reason=reason, samples=samples)

    def _load_cold(self) -> None:
        self._place.show(f"{self._case}: cold start")
        with self._place.start(self._case) as child:
            answer = child.open(self._place.describe_task(self._case))
        if answer["keeps_builds"]:
            self._samples["load_cold_seconds"] = answer["load_seconds"]

    def _load(self, child: ChildProcess) -> None:
        self._place.show(f"{self._case}: warm start")
        answer = child.open(self._place.describe_task(self._case))
        self._samples["import_seconds"] = answer["import_seconds"]
        self._samples["load_warm_seconds"] = answer["load_seconds"]

    def _draw_all(self, child: ChildProcess) -> None:
        work, runs = self._case.work, self._place.plan.runs
        self._place.show(f"{self._case}: first picture")
        file = self._place.folder / "pictures.npy"
        first = child.draw([work.prompt] * work.batch, work.seeds, work.steps, file)
        self._samples["first_picture_seconds"] = first["seconds"]
        self._pictures = np.load(file)
        self._settings = child.ask("describe")["described"]
        meter = EnergyMeter()
        for run in range(runs):
            self._place.show(f"{self._case}: picture {run + 1} of {runs}")
            answer = child.draw([work.prompt] * work.batch, work.seeds, work.steps)
            self._keep(answer)
            joules = meter.read_joules()
            self._samples["joules"] = None if joules is None else joules / (run + 1)
        self._samples["device_bytes"] = read_device_memory(child.pid)

    def _keep(self, answer: Mapping[str, Any]) -> None:
        self._samples["pictures"] = (*self._samples.get("pictures", ()), answer["seconds"])
        stages = self._samples.setdefault("stages", {})
        for name, seconds in answer["stages"].items():
            new = seconds if isinstance(seconds, list) else [seconds]
            stages[name] = (*stages.get(name, ()), *new)
        self._samples["peak_bytes"] = answer.get("peak_bytes")
        self._samples["steady_bytes"] = answer.get("resident_bytes")
        self._samples["os_threads"] = answer.get("os_threads")

    def _judge(self, child: ChildProcess) -> None:
        self._place.show(f"{self._case}: captions for the judge")
        captions, file = list(choose_captions()), self._place.folder / "judged.npy"
        child.draw(captions, list(range(len(captions))), STEPS, file)
        self._judgement = judge_pictures(np.load(file))

    def _rate(self, pictures: Pictures, reference: Pictures) -> Quality:
        errors = {
            each["name"]: each["relative_error"] for each in self._settings.get("components", ())
        }
        return Quality(
            psnr=measure_psnr(pictures, reference),
            ssim=measure_ssim(pictures, reference),
            relative_errors=errors,
            judgement=self._judgement,
        )
