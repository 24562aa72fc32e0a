"""``tune`` and ``explain``: measurements, and the reasons of each component's placement."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import TYPE_CHECKING

from fastdeploy_diffusion.cli.candidates import WIDTH, format_plan
from fastdeploy_diffusion.cli.json_text import to_json
from fastdeploy_diffusion.cli.pipeline import open_pipeline, quantize_first
from fastdeploy_diffusion.cli.progress import show_progress
from fastdeploy_diffusion.cli.quantize import describe_int8
from fastdeploy_diffusion.cli.result import describe_component
from fastdeploy_diffusion.cli.table import align
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.engines.plan import ComponentPlan

if TYPE_CHECKING:
    from fastdeploy_diffusion.predictors.component import ComponentReport
    from fastdeploy_diffusion.predictors.result import PipelineReport

Plans = Sequence[ComponentPlan | None]


def tune_all(
    config: DiffusionConfig, width: int | None, height: int | None, runs: int
) -> tuple[str, PipelineReport, list[ComponentPlan]]:
    """Measure a pipeline's components, with progress on stderr.

    Returns:
        Model and size, in words; the new report; the plan of each component.

    Raises:
        DiffusionError: As `open_pipeline` and the pipeline's ``tune``.
    """
    pipeline = open_pipeline(config)
    size = pipeline.choose_size(height, width)
    try:
        with show_progress("opening") as show:
            pipeline.quantize(show)
            plans = pipeline.tune(
                height=height,
                width=width,
                runs=runs,
                show=lambda what, done, total: show(what, done, total, unit="components"),
            )
    except KeyboardInterrupt:
        message = "the tuning is not finished; `explain` says which components were measured"
        warnings.warn(message, UserWarning, stacklevel=2)
        raise
    report = pipeline.report
    what = f"{report.model} ({report.family}), {size[0]} x {size[1]} pixels"
    return f"{what}, medians of {runs} runs", report, plans


def format_plans(
    what: str, report: PipelineReport, plans: Sequence[ComponentPlan], as_json: bool
) -> str:
    """Format the measurements, for people or for programs."""
    if as_json:
        return to_json([asdict(plan) for plan in plans])
    lines = [what]
    for plan, component in zip(plans, report.components, strict=True):
        lines += [f"{plan.component}, on {component.device}", *format_plan(plan, component)]
    return "\n".join(lines)


def explain_all(
    config: DiffusionConfig, width: int | None, height: int | None
) -> tuple[PipelineReport, Plans]:
    """Build a pipeline; returns the report, and the plan of `tune` for each component.

    There are no plans if neither engine nor precision is ``auto``.

    Raises:
        DiffusionError: As `open_pipeline` and the pipeline's ``build``.
    """
    pipeline = open_pipeline(config)
    quantize_first(pipeline)
    report = pipeline.build(height=height, width=width)
    is_open = "auto" in (config.engine, config.precision)
    return report, pipeline.find_plans() if is_open else ()


def format_explanation(report: PipelineReport, plans: Plans, as_json: bool) -> str:
    """Format the placement, the proof and the refused candidates of every component."""
    if as_json:
        return to_json(asdict(report))
    lines = [f"{report.model} ({report.family}), {report.scheduler}"]
    for plan, each in zip_longest(plans, report.components):
        lines += align([describe_component(each)])
        passes = ", ".join(f"{name} {count}" for name, count in each.passes.items() if count)
        lines += _wrap(f"passes: {passes or 'none'}")
        if each.changes_picture:
            lines += _wrap(f"another picture, as asked for, by: {', '.join(each.changes_picture)}")
        if each.fallback:
            lines += _wrap(each.fallback)
        lines += describe_int8(each)
        lines += format_plan(plan, each) if plan and plan.candidates else _pass_over(each)
    lines += _judge_tuning(report, plans) if plans else []
    if report.advice:
        lines.append(report.advice)
    return "\n".join(lines)


def _pass_over(report: ComponentReport) -> list[str]:
    return [
        line
        for name, reason in report.passed_over.items()
        for line in _wrap(f"not {name}: {reason}")
    ]


def _judge_tuning(report: PipelineReport, plans: Plans) -> list[str]:
    """Describe whether the tuning is complete, and what is missing."""
    names = [each.name for each in report.components]
    missing = [
        name for name, plan in zip(names, plans, strict=True) if plan is None or not plan.candidates
    ]
    if not missing:
        return []
    if len(missing) < len(names):
        return [f"the tuning is not finished, {', '.join(missing)} not measured: run tune again"]
    return ["not tuned: auto goes by its order, and `tune` measures what is fastest here"]


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
    )
