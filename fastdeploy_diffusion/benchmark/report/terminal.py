"""A result as text in columns."""

from collections.abc import Sequence

from fastdeploy_diffusion.benchmark.report.table import (
    HEADINGS,
    describe_ablation,
    describe_comparison,
    describe_roofline,
    list_cells,
    list_exponents,
    list_gaps,
    list_losses,
    list_unsteady,
    list_works,
)
from fastdeploy_diffusion.benchmark.result import BenchmarkResult


def format_terminal(result: BenchmarkResult) -> str:
    """Lay out a result for a terminal."""
    machine = result.machine
    lines = [
        f"{result.model.name} on {machine['cpu'] or 'an unknown CPU'}, "
        f"{machine['usable_cores']} cores"
    ]
    lines += _head("a peer is faster", list_losses(result))
    for work in list_works(result):
        rows = [list_cells(row) for row in result.rows if str(row.case.work) == work]
        lines += ["", work, *_align([list(HEADINGS), *rows])]
    lines += _head("how cost grows", list_exponents(result))
    lines += _head("in turns", [describe_comparison(each) for each in result.comparisons])
    lines += _head("roofline", [describe_roofline(each) for each in result.rooflines])
    lines += _head("passes", [describe_ablation(each) for each in result.ablations])
    lines += _head("unsteady (~)", list_unsteady(result))
    lines += _head("not measured", list_gaps(result))
    return "\n".join([*lines, "", *result.notes])


def _head(title: str, lines: Sequence[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines)] if lines else []


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
