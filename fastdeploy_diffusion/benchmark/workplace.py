"""Where a run's cases work: which process draws what, in which folder."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.benchmark.case import OWN, Case, Task, Work
from fastdeploy_diffusion.benchmark.child_process import ChildError, ChildProcess
from fastdeploy_diffusion.benchmark.plan import BenchmarkPlan
from fastdeploy_diffusion.compiler.calibration_prompts import read_prompts
from fastdeploy_diffusion.compiler.int8_effort import CALIBRATING
from fastdeploy_diffusion.engines.placement import AUTO
from fastdeploy_diffusion.precision import INT8
from fastdeploy_diffusion.runtime.cache import CALIBRATIONS
from fastdeploy_diffusion.scheduler_names import choose_scheduler
from fastdeploy_diffusion.schedulers import SCHEDULERS

_OWN_ADAPTER = Path(__file__).parent / "child" / "own.py"
_UNTOLD = ("variant", "tokenizer_path", "prediction_type")  # peers read the checkpoint's own
_SOURCE = Path(__file__).parents[2]

Show = Callable[[str], None]


@dataclass(frozen=True)
class Workplace:
    """Where the cases of a run work.

    Args:
        folder: For builds and pictures; the run removes it.
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
        """Make the task for the process of a case.

        Raises:
            ChildError: A peer would draw with something else than we do.
        """
        config, work = self.plan.config, case.work
        for option in () if case.is_own else _UNTOLD:
            if getattr(config, option) is not None:
                raise ChildError(f"{option} is set, which peers are not told")
        choice = choose_scheduler(config.scheduler) if config.scheduler else None
        if choice and choice.options and not case.is_own:
            raise ChildError(f"scheduler is {config.scheduler!r}, whose options peers are not told")
        task = Task(
            config=self._configure(case) if case.is_own else {},
            model_path=os.path.abspath(config.model_path),
            family=self.plan.family,
            scheduler=SCHEDULERS[choice.name].diffusers_name if choice else None,
            precision=case.precision,
            device=case.device,
            width=work.width,
            height=work.height,
            guidance_scale=work.guidance_scale,
            max_sequence_length=config.defaults.max_sequence_length,
            threads=work.threads,
            cache_dir=str(self.cache_folder(case)),
            calibration=self._find_calibration(work) if case.is_calibrated else None,
        )
        return task.model_dump(mode="json")

    def _configure(self, case: Case) -> dict[str, Any]:
        """Make the configuration of a case of ours."""
        config = self.plan.config
        own = {
            **config.model_dump(exclude_unset=True),
            "engine": case.engine,
            "precision": case.precision,
            "threads": case.work.threads,
            "cpu_fallback": False,
            "cache_dir": str(self.cache_folder(case)),
            # Every picture's prompt is encoded, as by the peers.
            "embedding_cache": {"memory_mib": 0},
        }
        # What is only said of int8 is of the cases in it.
        unsaid = {"int8_quality": None, "int8_portable": False}
        chosen = config.model_copy(update={"precision": case.precision, **unsaid})
        if not chosen.list_quantized():
            own["int8_quality"] = None
        if INT8 not in [chosen.component(name).precision for name in chosen.list_quantized()]:
            own["int8_portable"] = False
        return own

    def calibrate(self, case: Case) -> None:
        """Record the inputs that a peer's case is quantised with, if our int8 has not.

        Our networks draw the prompts, in the precision of our first case without int8.

        Raises:
            ChildError: They cannot.
        """
        if self._find_calibration(case.work):
            return
        self.show(f"{case}: recording inputs to calibrate with")
        choice = {"painter": OWN, "engine": AUTO, "precision": "fp32"}
        own = (each for each in self._list_own(case.work) if not each.precision.startswith("int8"))
        drawn = next(own, case.model_copy(update=choice))
        task = self.describe_task(drawn)
        defaults = {**task["config"].get("defaults", {}), "num_inference_steps": case.work.steps}
        task["config"] |= {
            "defaults": defaults,
            "cache_dir": str(self._calibration_cache(case.work)),
        }
        with self.start(drawn) as child:
            child.open(task)
            child.ask("calibrate")

    def _find_calibration(self, work: Work) -> str | None:
        """Find inputs that were recorded for a piece of work, by our own int8 or for peers."""
        caches = [*map(self.cache_folder, self._list_own(work)), self._calibration_cache(work)]
        found = [each for cache in caches for each in (cache / CALIBRATIONS).glob("*/")]
        # Beside them lie others, which our int8 is judged by.
        file = self.plan.config.calibration_prompts
        counts = {len(read_prompts(file).calibrating), *([] if file else [CALIBRATING])}
        whole = (each for each in found if len(list(each.glob("*.safetensors"))) in counts)
        return next(map(str, whole), None)

    def _list_own(self, work: Work) -> list[Case]:
        return [each for each in self.plan.cases if each.is_own and each.work == work]

    def _calibration_cache(self, work: Work) -> Path:
        return self.folder / f"calibration-{work.width}x{work.height}-{work.steps}"

    def cache_folder(self, case: Case) -> Path:
        """The case's own cache of builds."""
        work = case.work
        size = f"{work.width}x{work.height}-{work.batch}-{work.steps}-{work.threads}"
        return self.folder / f"{case.painter}-{case.engine}-{case.precision}-{size}"
