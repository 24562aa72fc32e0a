"""A result as Markdown."""

from collections.abc import Iterable, Sequence

from fastdeploy_diffusion.benchmark.report.table import (
    HEADINGS,
    LATENCY_HEADINGS,
    OPERATOR_HEADINGS,
    RESOURCE_HEADINGS,
    ROOFLINE_HEADINGS,
    describe_ablation,
    describe_comparison,
    describe_roofline,
    list_cells,
    list_exponents,
    list_facts,
    list_gaps,
    list_latencies,
    list_losses,
    list_operators,
    list_resources,
    list_rooflines,
    list_unsteady,
    list_works,
)
from fastdeploy_diffusion.benchmark.result import BenchmarkResult


def format_markdown(result: BenchmarkResult) -> str:
    """Write the tables, and what they were measured on."""
    lines = [f"# Benchmark of {result.model.name}", ""]
    lines += _list("A peer is faster", list_losses(result))
    for work in list_works(result):
        rows = [row for row in result.rows if str(row.case.work) == work]
        lines += [f"## {work}", "", *_tabulate(HEADINGS, map(list_cells, rows)), ""]
        lines += [*_tabulate(LATENCY_HEADINGS, list_latencies(rows)), ""]
        lines += [*_tabulate(RESOURCE_HEADINGS, list_resources(rows)), ""]
        if found := [each for each in result.rooflines if str(each.case.work) == work]:
            lines += [*_tabulate(ROOFLINE_HEADINGS, list_rooflines(found)), ""]
            lines += [*_tabulate(OPERATOR_HEADINGS, list_operators(found)), ""]
    for title, remarks in (
        ("How cost grows", list_exponents(result)),
        ("In turns", [describe_comparison(each) for each in result.comparisons]),
        ("Roofline", [describe_roofline(each) for each in result.rooflines]),
        ("Passes", [describe_ablation(each) for each in result.ablations]),
        ("Unsteady", list_unsteady(result)),
        ("Not measured", list_gaps(result)),
        ("Notes", result.notes),
    ):
        lines += _list(title, remarks)
    lines += ["## Measured with", "", *_tabulate(("", ""), list_facts(result))]
    return "\n".join(lines) + "\n"


def _list(title: str, remarks: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *(f"* {each}" for each in remarks), ""] if remarks else []


def _tabulate(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(head) - 1)]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, rule, *rows)]
    return [f"| {' | '.join(row)} |" for row in cells]
