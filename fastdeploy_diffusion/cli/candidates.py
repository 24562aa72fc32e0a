"""The ways to run a component that `tune` has tried, as a table that fits a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastdeploy_diffusion.cli.table import align
from fastdeploy_diffusion.engines.plan import Candidate, ComponentPlan

if TYPE_CHECKING:
    from fastdeploy_diffusion.predictors.component import ComponentReport

WIDTH = 100
_HEADER = ["", "engine", "precision", "passes", "ms", "times", "error", ""]


def format_plan(plan: ComponentPlan, report: ComponentReport) -> list[str]:
    """Format the measured candidates, the fastest first; below them, the others.

    Args:
        report: Of the one that runs: the unit of the column "times".

    Returns:
        Lines of at most ``WIDTH`` letters.
    """
    measured = sorted(
        (each for each in plan.candidates if each.seconds is not None),
        key=lambda each: each.seconds or 0.0,
    )
    shown = [*_list_passes(measured), *_list_refusals(plan)]
    if not measured:
        return shown
    chosen = next((each for each in measured if _is_chosen(each, report)), None)
    fastest = plan.choose("auto", None)
    unit = chosen or measured[0]
    rows = [
        [
            "",
            each.engine,
            each.precision,
            _count(each.passes),
            _write_ms(each),
            f"{(each.seconds or 0) / (unit.seconds or 1):.2f}",
            f"{each.relative_error:.0e}",
            _remark(each, chosen, fastest, plan),
        ]
        for each in measured
    ]
    return [*align([_HEADER, *rows]), *shown]


def _is_chosen(candidate: Candidate, report: ComponentReport) -> bool:
    ran = report.engine, report.precision, report.measured_seconds
    return (candidate.engine, candidate.precision, candidate.seconds) == ran


def _remark(
    candidate: Candidate, chosen: Candidate | None, fastest: Candidate | None, plan: ComponentPlan
) -> str:
    if candidate == chosen:
        return "runs"
    if plan.find_unsafe(candidate.engine, candidate.precision):
        return "not safe"
    return "runs with --precision auto" if candidate == fastest else ""


def _write_ms(candidate: Candidate) -> str:
    ms = (candidate.seconds or 0.0) * 1e3
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.2f}"


def _count(passes: Sequence[str]) -> str:
    return str(len(passes)) if passes else "none"


def _list_passes(measured: Sequence[Candidate]) -> list[str]:
    """Name the passes of each engine and precision that was measured with any."""
    used = {(each.engine, each.precision): each.passes for each in measured if each.passes}
    lines = []
    for (engine, precision), passes in used.items():
        text = f"passes of {engine} in {precision}: {', '.join(passes)}"
        lines += textwrap.wrap(
            text,
            WIDTH,
            initial_indent="  ",
            subsequent_indent="    ",
            break_on_hyphens=False,
        )
    return lines


def _list_refusals(plan: ComponentPlan) -> list[str]:
    """List the candidates that were refused, by reason."""
    reasons: dict[str, list[str]] = {}
    for each in plan.candidates:
        unsafe = plan.find_unsafe(each.engine, each.precision)
        if reason := each.refusal or (unsafe and f"not safe: {unsafe}"):
            names = reasons.setdefault(" ".join(reason.split()), [])
            if (name := f"{each.engine} in {each.precision}") not in names:
                names.append(name)
    return [
        "  " + textwrap.shorten(f"not {', '.join(names)}: {reason}", WIDTH - 2, placeholder=" …")
        for reason, names in reasons.items()
    ]
