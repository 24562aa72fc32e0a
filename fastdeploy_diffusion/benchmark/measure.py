"""Measures one case: in processes of its own, first with an empty cache, then with a full one."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastdeploy_diffusion.benchmark.case import OWN, Case, Task
from fastdeploy_diffusion.benchmark.child_process import ChildError, ChildProcess
from fastdeploy_diffusion.benchmark.energy import EnergyMeter
from fastdeploy_diffusion.benchmark.environment import read_device_memory
from fastdeploy_diffusion.benchmark.plan import BenchmarkPlan
from fastdeploy_diffusion.benchmark.quality import Pictures, measure_psnr, measure_ssim
from fastdeploy_diffusion.benchmark.result import (
    INTERRUPTED,
    Judgement,
    Missing,
    Quality,
    Row,
    Samples,
)
from fastdeploy_diffusion.benchmark.shapes_score import STEPS, choose_captions, judge_pictures
from fastdeploy_diffusion.config.diffusion_config import COMPONENTS
from fastdeploy_diffusion.schedulers import SCHEDULERS

REFERENCE_ENGINE = "paddle-eager"  # the layers themselves, without passes
_OWN_ADAPTER = Path(__file__).parent / "child" / "own.py"
_SOURCE = Path(__file__).parents[2]

Show = Callable[[str], None]


@dataclass(frozen=True)
class Workplace:
    """Where the cases of a run work.

    Args:
        plan: The run.
        folder: For builds and pictures; the run removes it.
        show: Shows what is being done.
    """

    plan: BenchmarkPlan
    folder: Path
    show: Show

    def start(self, case: Case) -> ChildProcess:
        """Start the process that draws a case; nothing is loaded yet.

        Raises:
            ChildError: It does not start.
        """
        environment = dict(os.environ)
        python, adapter = sys.executable, _OWN_ADAPTER
        paths = [str(_SOURCE), environment.pop("PYTHONPATH", "")]
        if case.is_own:
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        else:
            peer = next(each for each in self.plan.peers if each.name == case.painter)
            python, adapter = peer.python, peer.adapter
        return ChildProcess(python, adapter, environment, self.plan.time_limit)

    def describe_task(self, case: Case) -> dict[str, Any]:
        """Say what the process of a case needs to know."""
        config, work = self.plan.config, case.work
        own = {
            **config.model_dump(exclude_unset=True),
            "engine": case.engine,
            "precision": case.precision,
            "threads": work.threads,
            "cpu_fallback": False,
            "cache_dir": str(self.cache_folder(case)),
        }
        scheduler = config.scheduler and SCHEDULERS[config.scheduler].diffusers_name
        task = Task(
            config=own if case.is_own else {},
            model_path=self.plan.model.path,
            scheduler=scheduler,
            precision=case.precision,
            device=case.device,
            width=work.width,
            height=work.height,
            guidance_scale=work.guidance_scale,
            threads=work.threads,
        )
        return task.model_dump(mode="json")

    def cache_folder(self, case: Case) -> Path:
        """The case's own cache of builds."""
        work = case.work
        return (
            self.folder / f"{case.engine}-{case.precision}-{work.width}x{work.height}-{work.batch}"
        )


def draw_reference(place: Workplace, case: Case) -> Pictures:
    """Draw a case's work with the Paddle layers in float32.

    Raises:
        ChildError: It failed.
    """
    update = {"engine": REFERENCE_ENGINE, "precision": "fp32", "device": "cpu"}
    reference = case.model_copy(update={**update, "painter": OWN})
    task = place.describe_task(reference)
    task["config"] |= {"passes": [], "cache": False, "device": "cpu", "target": None}
    for component in COMPONENTS:  # whose own choice of an engine is no reference
        task["config"].pop(component, None)
    with place.start(reference) as child:
        child.open(task)
        return _draw(child, case, place.folder / "reference.npy")


def measure_case(place: Workplace, case: Case, reference: Pictures | str) -> Row | Missing:
    """Measure one case; what fails half way keeps what was measured before.

    Args:
        place: Where.
        case: What.
        reference: The reference's pictures, or why there are none.
    """
    measurement = _Measurement(place, case, reference)
    reason = measurement.run()
    return measurement.conclude(reason)


class _Measurement:
    """What is known of a case so far."""

    def __init__(self, place: Workplace, case: Case, reference: Pictures | str) -> None:
        self._place, self._case, self._reference = place, case, reference
        self._samples: dict[str, Any] = {}
        self._settings: dict[str, Any] = {}
        self._pictures: Pictures | None = None
        self._judgement: Judgement | None = None

    def run(self) -> str:
        """Measure; say why it ended before the end, or nothing."""
        try:
            if self._case.is_own:
                self._load_cold()
            with self._place.start(self._case) as child:
                self._load(child)
                self._draw_all(child)
                if self._place.plan.is_shapes:
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


def _draw(child: ChildProcess, case: Case, file: Path) -> Pictures:
    work = case.work
    child.draw([work.prompt] * work.batch, work.seeds, work.steps, file)
    pictures: Pictures = np.load(file)
    return pictures
