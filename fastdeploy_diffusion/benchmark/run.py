"""A whole run: the reference, every case, the comparisons; whatever happens, what is known."""

import hashlib
import json
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.benchmark.ablate import ablate, choose_fastest
from fastdeploy_diffusion.benchmark.case import Case, Work
from fastdeploy_diffusion.benchmark.child_process import ChildError
from fastdeploy_diffusion.benchmark.energy import EnergyMeter
from fastdeploy_diffusion.benchmark.environment import (
    describe_benchmark_machine,
    list_packages,
    read_git_revision,
)
from fastdeploy_diffusion.benchmark.measure import measure_case
from fastdeploy_diffusion.benchmark.plan import REFERENCE, BenchmarkPlan
from fastdeploy_diffusion.benchmark.quality import Pictures
from fastdeploy_diffusion.benchmark.reference import draw_reference
from fastdeploy_diffusion.benchmark.result import (
    INTERRUPTED,
    Ablation,
    BenchmarkResult,
    Comparison,
    Missing,
)
from fastdeploy_diffusion.benchmark.roofline.measure import measure_roofline
from fastdeploy_diffusion.benchmark.roofline.roofline import Roofline
from fastdeploy_diffusion.benchmark.row import Row
from fastdeploy_diffusion.benchmark.shapes_score import CAPTIONS, STEPS
from fastdeploy_diffusion.benchmark.take_turns import choose_pairs, take_turns
from fastdeploy_diffusion.benchmark.workplace import Workplace
from fastdeploy_diffusion.config import DiffusionConfig


@dataclass
class _Findings:
    """What is known so far."""

    rows: list[Row] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    ablations: list[Ablation] = field(default_factory=list)
    rooflines: list[Roofline] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)

    def add(self, found: Row | Comparison | Missing) -> str:
        """Keep what was found; say why something is missing of it."""
        if isinstance(found, Row):
            self.rows.append(found)
        elif isinstance(found, Comparison):
            self.comparisons.append(found)
        else:
            self.missing.append(found)
            return found.reason
        return found.missing


def run_benchmark(plan: BenchmarkPlan, show: Callable[[str, int, int], None]) -> BenchmarkResult:
    """Measure everything that a plan names.

    Nothing that goes wrong in a case ends the run. Ctrl-C does: what is measured by then is kept,
    and what is not is listed.

    Args:
        plan: What to measure.
        show: Shows what is being done, and how many of how many cases are.
    """
    started = datetime.now(timezone.utc)
    findings = _Findings(missing=list(plan.missing))
    with tempfile.TemporaryDirectory(prefix="fastdeploy-diffusion-bench-") as folder:
        place = Workplace(
            plan, Path(folder), lambda what: show(what, len(findings.rows), len(plan.cases))
        )
        for part in (_measure_rows, _compare, _survey, _ablate):
            if part(place, findings):
                break
    config = _describe_config(plan.config)
    return BenchmarkResult(
        started=started.isoformat(timespec="seconds"),
        machine=describe_benchmark_machine(),
        packages=list_packages(),
        python=platform.python_version(),
        git_revision=read_git_revision(),
        model=plan.model,
        config=config,
        config_digest=_digest(config),
        runs=plan.runs,
        sweep=plan.sweep,
        rows=tuple(findings.rows),
        comparisons=tuple(findings.comparisons),
        ablations=tuple(findings.ablations),
        rooflines=tuple(findings.rooflines),
        missing=tuple(findings.missing),
        notes=_write_notes(plan, findings),
    )


def _describe_config(config: DiffusionConfig) -> dict[str, Any]:
    """Say what it holds without the paths of this machine: a result can be shown to others."""
    content = config.model_dump(mode="json", exclude={"cache_dir"})
    for option in ("model_path", "tokenizer_path"):
        content[option] = content[option] and Path(content[option]).name
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _measure_rows(place: Workplace, findings: _Findings) -> bool:
    """Measure the cases; tell whether that was interrupted."""
    references: dict[Work, Pictures | str] = {}
    cases = list(place.plan.cases)
    while cases:
        case = cases.pop(0)
        picture = case.work.model_copy(update={"threads": 0})  # they change no picture
        if picture not in references:
            references[picture] = _try_reference(place, case)
        reference = references[picture]
        is_interrupted = isinstance(reference, str) and reference == INTERRUPTED
        if is_interrupted:
            cases.insert(0, case)
        else:
            is_interrupted = findings.add(measure_case(place, case, reference)) == INTERRUPTED
        if is_interrupted:
            findings.missing += [Missing(case=str(each), reason=INTERRUPTED) for each in cases]
            return True
    return False


def _try_reference(place: Workplace, case: Case) -> Pictures | str:
    place.show(f"{REFERENCE['engine']} {REFERENCE['precision']}, {case.work}: reference")
    try:
        return draw_reference(place, case)
    except ChildError as error:
        return str(error)
    except KeyboardInterrupt:
        return INTERRUPTED


def _compare(place: Workplace, findings: _Findings) -> bool:
    for ours, theirs in choose_pairs(findings.rows):
        if findings.add(take_turns(place, ours, theirs)) == INTERRUPTED:
            return True
    return False


def _survey(place: Workplace, findings: _Findings) -> bool:
    # A sweep asks how cost grows, and has many pieces of work.
    for case in () if place.plan.sweep else choose_fastest(findings.rows):
        found = measure_roofline(place, case)
        if not isinstance(found, Missing):
            findings.rooflines += found
        elif findings.add(found) == INTERRUPTED:
            return True
    return False


def _ablate(place: Workplace, findings: _Findings) -> bool:
    for case in choose_fastest(findings.rows) if place.plan.ablation else ():
        found = ablate(place, case)
        if not isinstance(found, Missing):
            findings.ablations += found
        elif findings.add(found) == INTERRUPTED:
            return True
    return False


def _write_notes(plan: BenchmarkPlan, findings: _Findings) -> tuple[str, ...]:
    notes = [
        "Cold means an empty cache of builds; the files of the checkpoint and of Python may lie "
        "in the system's memory already.",
        "Peak memory is that of the warm process, loading included.",
    ]
    if any(row.quality.judgement for row in findings.rows):
        notes.append(
            f"The judge looks at {CAPTIONS} captions, drawn in {STEPS} steps whatever is timed."
        )
    if plan.model.random_weights:
        notes.append(
            f"The weights are random ({plan.model.random_weights}): the pictures are noise, and "
            "only their difference from the reference means anything."
        )
    if obstacle := EnergyMeter().obstacle:
        notes.append(f"No energy: {obstacle}.")
    return tuple(notes)
