"""``passes``: tries each pass on a model: matches, error and, on request, speed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastdeploy_diffusion.cli.json_text import to_json
from fastdeploy_diffusion.cli.pipeline import open_pipeline
from fastdeploy_diffusion.cli.progress import show_progress
from fastdeploy_diffusion.cli.table import align
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import ConfigError

if TYPE_CHECKING:
    from fastdeploy_diffusion.compiler.pass_tester import PassTrial
    from fastdeploy_diffusion.compiler.turns import TurnTimings
    from fastdeploy_diffusion.passes.contract import Pass
    from fastdeploy_diffusion.predictors.result import PipelineReport


def parse_passes(text: str | None) -> list[str] | None:
    """Read ``merge-qkv,merge-kv`` as names; ``None`` if nothing was given."""
    return None if text is None else [name.strip() for name in text.split(",")]


def try_passes(config: DiffusionConfig, measure: bool) -> tuple[PipelineReport, list[PassTrial]]:
    """Try each pass alone on each component: those that the configuration names, or all.

    Returns:
        The components' reports, and the trials, component by component.

    Raises:
        DiffusionError: As `open_pipeline`; or a build fails, and no pass is to blame.
    """
    pipeline = open_pipeline(config)
    # Imports Paddle, which `open_pipeline` has checked for.
    from fastdeploy_diffusion.compiler.pass_tester import PassTester

    passes = _choose(config)
    from fastdeploy_diffusion.predictors.denoising import OF_REFINER

    builds = pipeline.plan_builds()
    if pipeline.refiner is not None:
        width, height = pipeline.choose_size()
        more = pipeline.refiner.plan_builds(height, width)
        builds += [replace(each, name=OF_REFINER + each.name) for each in more]
    trials: list[PassTrial] = []
    with show_progress("opening") as show:
        for build in builds:
            with PassTester(build, measure=measure) as tester:
                for each in passes:
                    total = len(builds) * len(passes)
                    show(f"{build.name}: {each.name}", len(trials), total, unit="trials")
                    trials.append(tester.try_pass(each))
    return pipeline.report, trials


def format_json(trials: Sequence[PassTrial], measure: bool) -> str:
    """Write the trials as JSON: a list with an object for each component and pass.

    With ``measure``, there are keys for timings; null where nothing was timed. The problem of an
    unusable pass has no key, and is a warning.
    """
    for trial in trials:
        if trial.problem:
            warnings.warn(f"{trial.component}: {trial.problem}", UserWarning, stacklevel=2)
    return to_json([_describe(trial, measure) for trial in trials])


def format_table(report: PipelineReport, trials: Sequence[PassTrial]) -> str:
    """Format the trials for people, component by component."""
    rows = align([["", trial.name, *_explain(trial)] for trial in trials])
    lines = [report.model]
    for component in report.components:
        where = f"{component.engine} on {component.device} in {component.precision}"
        lines.append(f"{component.name}, {where}")
        for row, trial in zip(rows, trials, strict=True):
            if trial.component == component.name:
                lines.append(row)
                lines += [
                    f"    skipped {path or 'the whole network'}: {reason}"
                    for path, reason in trial.skipped.items()
                ]
                if trial.problem:
                    lines.append(f"    cannot be used: {' '.join(trial.problem.split())}")
    return "\n".join(lines)


def _choose(config: DiffusionConfig) -> list[Pass]:
    from fastdeploy_diffusion.passes.registry import choose_passes, make_all_passes

    if config.passes is None:
        return make_all_passes()
    if not config.passes:
        raise ConfigError(
            "passes is empty, so there is none to try",
            fix="name some with --passes, or leave it out",
        )
    return choose_passes(config.passes)


def _describe(trial: PassTrial, measure: bool) -> dict[str, Any]:
    row = {
        "component": trial.component,
        "pass": trial.name,
        "matched": trial.matched,
        "expected": trial.expected,
        "skipped": dict(trial.skipped),
        "error": trial.error,
        "changes_picture": trial.changes_picture,
    }
    if not measure:
        return row
    timings = trial.timings
    return row | {
        "seconds_without": timings and timings.median_before,
        "seconds_with": timings and timings.median_after,
        "times_as_fast": timings and timings.median_ratio,
        "times_as_fast_quartiles": timings and timings.quartiles,
    }


def _explain(trial: PassTrial) -> list[str]:
    matched = "failed" if trial.matched is None else str(trial.matched)
    if trial.expected is not None:
        matched += f" of {trial.expected}"
    error = "" if trial.error is None else f"within {trial.error:.0e} of the Paddle layer"
    if error and trial.changes_picture:
        error += " with it, and so another picture"
    return [matched, error, _explain_speed(trial.timings) if trial.timings else ""]


def _explain_speed(timings: TurnTimings) -> str:
    first, third = timings.quartiles
    return (
        f"{timings.median_before * 1e3:.2f} ms without, {timings.median_after * 1e3:.2f} ms with: "
        f"{timings.median_ratio:.2f} times as fast ({first:.2f} to {third:.2f} in half of "
        f"{len(timings.ratios)} turns)"
    )
