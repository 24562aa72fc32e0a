"""Where a run's cases work: which process draws what, in which folder."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.benchmark.case import Case, Task
from fastdeploy_diffusion.benchmark.child_process import ChildError, ChildProcess
from fastdeploy_diffusion.benchmark.plan import BenchmarkPlan
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
        own = {
            **config.model_dump(exclude_unset=True),
            "engine": case.engine,
            "precision": case.precision,
            "threads": work.threads,
            "cpu_fallback": False,
            "cache_dir": str(self.cache_folder(case)),
            # Every picture's prompt is encoded, as by the peers.
            "embedding_cache": {"memory_mib": 0},
        }
        scheduler = config.scheduler and SCHEDULERS[config.scheduler].diffusers_name
        task = Task(
            config=own if case.is_own else {},
            model_path=os.path.abspath(config.model_path),
            family=self.plan.family,
            scheduler=scheduler,
            precision=case.precision,
            device=case.device,
            width=work.width,
            height=work.height,
            guidance_scale=work.guidance_scale,
            max_sequence_length=config.defaults.max_sequence_length,
            threads=work.threads,
            cache_dir=str(self.cache_folder(case)),
        )
        return task.model_dump(mode="json")

    def cache_folder(self, case: Case) -> Path:
        """The case's own cache of builds."""
        work = case.work
        size = f"{work.width}x{work.height}-{work.batch}-{work.steps}-{work.threads}"
        return self.folder / f"{case.painter}-{case.engine}-{case.precision}-{size}"
