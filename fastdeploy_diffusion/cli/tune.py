"""``tune`` and ``explain``: what was measured here, and why each component runs as it does."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from fastdeploy_diffusion.cli.pipeline import open_pipeline
from fastdeploy_diffusion.cli.result import describe_component
from fastdeploy_diffusion.cli.table import align
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.engines.plan import Candidate, ComponentPlan
from fastdeploy_diffusion.predictors.component import ComponentReport
from fastdeploy_diffusion.predictors.result import PipelineReport


def tune_all(
    config: DiffusionConfig, width: int | None, height: int | None, runs: int
) -> list[ComponentPlan]:
    """Measure a pipeline's components; raises as `open_pipeline` and the pipeline's ``tune``."""
    return open_pipeline(config).tune(height=height, width=width, runs=runs)


def format_plans(plans: Sequence[ComponentPlan], as_json: bool) -> str:
    """Lay out what was measured, for people or for programs."""
    if as_json:
        return json.dumps([asdict(plan) for plan in plans], indent=2)
    lines = []
    for plan in plans:
        shapes = ", ".join(
            f"{name} {' x '.join(map(str, shape))}" for name, shape in plan.shapes.items()
        )
        taken = {
            plan.choose(precision, None)
            for precision in {each.precision for each in plan.candidates}
        }
        rows = [
            ["", str(each), *_describe_candidate(each), "taken" if each in taken else ""]
            for each in plan.candidates
        ]
        lines += [f"{plan.component}: {shapes}", *align(rows)]
    return "\n".join(lines)


def explain_all(config: DiffusionConfig, width: int | None, height: int | None) -> PipelineReport:
    """Build a pipeline; raises as `open_pipeline` and the pipeline's ``build``."""
    return open_pipeline(config).build(height=height, width=width)


def format_explanation(report: PipelineReport, as_json: bool) -> str:
    """Say of every component what runs it, how well that is proven, and why nothing else does."""
    if as_json:
        return json.dumps(asdict(report), indent=2)
    lines = [f"{report.model} ({report.family})"]
    for each in report.components:
        lines += align([describe_component(each)])
        lines += [f"  {line}" for line in _explain(each)]
    if report.advice:
        lines.append(report.advice)
    return "\n".join(lines)


def _describe_candidate(candidate: Candidate) -> list[str]:
    if candidate.seconds is None:
        return [candidate.refusal, ""]
    return [f"{candidate.seconds:.4g} s", f"relative error {candidate.relative_error:.1e}"]


def _explain(report: ComponentReport) -> list[str]:
    passes = ", ".join(f"{name} {count}" for name, count in report.passes.items() if count)
    lines = [f"passes: {passes or 'none'}"]
    if report.measured_seconds is not None:
        lines.append(f"one run took {report.measured_seconds:.4g} s when it was tuned")
    if report.fallback:
        lines.append(report.fallback)
    return lines + [f"not {name}: {reason}" for name, reason in report.passed_over.items()]
