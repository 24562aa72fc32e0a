"""Runs a benchmark; what was measured is kept where a part of it fails."""

import hashlib
import json
import platform
import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.benchmark.energy import EnergyMeter
from fastdeploy_diffusion.benchmark.environment import (
    describe_benchmark_machine,
    list_packages,
    read_git_revision,
)
from fastdeploy_diffusion.benchmark.findings import Findings, measure_all
from fastdeploy_diffusion.benchmark.plan import BenchmarkPlan
from fastdeploy_diffusion.benchmark.result import BenchmarkResult
from fastdeploy_diffusion.benchmark.shapes_score import CAPTIONS, STEPS
from fastdeploy_diffusion.benchmark.workplace import Workplace
from fastdeploy_diffusion.config import DiffusionConfig


def run_benchmark(plan: BenchmarkPlan, show: Callable[[str, int, int], None]) -> BenchmarkResult:
    """Measure everything that a plan names.

    Nothing that goes wrong in a case ends the run. Ctrl-C does: what is measured by then is kept,
    and what is not is listed.
    """
    started = datetime.now(timezone.utc)
    findings = Findings(missing=list(plan.missing))
    with tempfile.TemporaryDirectory(prefix="fastdeploy-diffusion-bench-") as folder:
        place = Workplace(
            plan, Path(folder), lambda what: show(what, len(findings.rows), len(plan.cases))
        )
        measure_all(place, findings)
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
    """List its options without paths of this machine: a result can be shown to others."""
    content = config.model_dump(mode="json", exclude={"cache_dir"})
    for option in ("model_path", "tokenizer_path"):
        content[option] = content[option] and Path(content[option]).name
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _write_notes(plan: BenchmarkPlan, findings: Findings) -> tuple[str, ...]:
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
