"""Where a peer is faster than this library: what a reader has to see first."""

from fastdeploy_diffusion.benchmark.report.table import format_seconds
from fastdeploy_diffusion.benchmark.result import BenchmarkResult
from fastdeploy_diffusion.benchmark.row import STAGES, Row
from fastdeploy_diffusion.benchmark.summary import summarise


def list_losses(result: BenchmarkResult) -> list[str]:
    """Name every stage, and every whole picture, of which a peer's median is the lower one.

    A peer is set against our fastest case of the same work and precision, stage by stage; where we
    have none in that precision, against our fastest of all.
    """
    rows = [row for row in result.rows if row.samples.pictures]
    lines = []
    for theirs in (row for row in rows if not row.case.is_own):
        ours = [row for row in rows if row.case.is_own and row.case.work == theirs.case.work]
        same = [row for row in ours if row.case.precision == theirs.case.precision]
        for figure, seconds in _list_medians(theirs).items():
            found = {row.case.name: _list_medians(row).get(figure) for row in same or ours}
            known = {name: each for name, each in found.items() if each is not None}
            if known and seconds < min(known.values()):
                name = min(known, key=lambda name: known[name])
                lines.append(
                    f"{theirs.case} is faster than ours in {figure.replace('_', ' ')}: "
                    f"{format_seconds(seconds)}, and {format_seconds(known[name])} on {name}"
                )
    return lines


def _list_medians(row: Row) -> dict[str, float]:
    figures = {"the whole picture": row.samples.pictures, **row.samples.stages}
    return {
        name: summarise(samples).p50
        for name, samples in figures.items()
        if samples and name in ("the whole picture", *STAGES)
    }
