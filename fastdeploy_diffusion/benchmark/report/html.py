"""A result as one page that needs nothing from outside."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from fastdeploy_diffusion.benchmark.report.charts.bars import draw_stage_bars, draw_starts
from fastdeploy_diffusion.benchmark.report.charts.planes import (
    draw_growth,
    draw_memory_growth,
    draw_roofline,
    draw_speed_and_quality,
)
from fastdeploy_diffusion.benchmark.report.charts.spreads import (
    draw_ablation,
    draw_latencies,
    draw_turns,
)
from fastdeploy_diffusion.benchmark.report.svg import Figure
from fastdeploy_diffusion.benchmark.report.table import (
    HEADINGS,
    LATENCY_HEADINGS,
    OPERATOR_HEADINGS,
    RESOURCE_HEADINGS,
    ROOFLINE_HEADINGS,
    describe_comparison,
    list_cells,
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
from fastdeploy_diffusion.benchmark.sweep import list_growths

_STYLE = Path(__file__).with_name("style.css")


def format_html(result: BenchmarkResult) -> str:
    """Write the page: tables, charts of each piece of work, and what was measured with what."""
    title = f"Benchmark of {result.model.name}"
    cpu = result.machine.get("cpu") or "an unknown CPU"
    where = f"{cpu}, {result.machine.get('usable_cores')} cores, {result.started}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(where)}</p>",
    ]
    body += _list("A peer is faster", list_losses(result))
    body += _show_sweep(result)
    for work in list_works(result):
        content = _show_work(result, work)
        body += [f"<section><h2>{escape(work)}</h2>", *content, "</section>"]
    for name, lines in (
        ("Unsteady (~)", list_unsteady(result)),
        ("Not measured (*)", list_gaps(result)),
        ("Notes", result.notes),
    ):
        body += _list(name, lines)
    body += ["<h2>Measured with</h2>", _tabulate((), list_facts(result), "facts")]
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{_STYLE.read_text(encoding='utf-8')}</style>",
            "</head>\n<body>\n<main>",
            *body,
            "</main>\n</body>\n</html>\n",
        ]
    )


def _show_work(result: BenchmarkResult, work: str) -> list[str]:
    rows = [row for row in result.rows if str(row.case.work) == work]
    pairs = [each for each in result.comparisons if str(each.ours.work) == work]
    ablations = [each for each in result.ablations if str(each.case.work) == work]
    rooflines = [each for each in result.rooflines if str(each.case.work) == work]
    figures = [
        draw_stage_bars(rows),
        draw_latencies(rows),
        draw_speed_and_quality(rows),
        draw_starts(rows),
        draw_turns(pairs),
        draw_roofline(rooflines),
        draw_ablation(ablations),
    ]
    tables = [
        (LATENCY_HEADINGS, list_latencies(rows)),
        (RESOURCE_HEADINGS, list_resources(rows)),
        (ROOFLINE_HEADINGS, list_rooflines(rooflines)),
        (OPERATOR_HEADINGS, list_operators(rooflines)),
    ]
    return [
        _tabulate(HEADINGS, [list_cells(row) for row in rows], "figures"),
        *_list("", [describe_comparison(each) for each in pairs]),
        *_lay_out(figures),
        "<details><summary>Every figure</summary>",
        *(_tabulate(head, lines, "figures") for head, lines in tables if lines),
        "</details>",
    ]


def _show_sweep(result: BenchmarkResult) -> list[str]:
    if result.sweep is None:
        return []
    growths = list_growths(result.rows, result.sweep)
    figures = [draw(growths, result.sweep) for draw in (draw_growth, draw_memory_growth)]
    return ["<section><h2>How cost grows</h2>", *_lay_out(figures), "</section>"]


def _lay_out(figures: Sequence[Figure | None]) -> list[str]:
    return ['<div class="charts">', *(_frame(figure) for figure in figures if figure), "</div>"]


def _frame(figure: Figure) -> str:
    legend = "".join(
        f'<li><span class="key {style}"></span>{escape(words)}</li>'
        for style, words in figure.legend.items()
    )
    return "".join(
        [
            f'<figure data-chart="{figure.name}"><figcaption>{escape(figure.title)}</figcaption>',
            f'<ul class="legend">{legend}</ul>' if legend else "",
            figure.svg,
            f'<p class="how">{escape(figure.caption)}</p>' if figure.caption else "",
            "</figure>",
        ]
    )


def _list(title: str, lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return [*([f"<h2>{escape(title)}</h2>"] if title else []), f"<ul>{items}</ul>"]


def _tabulate(head: Sequence[str], rows: Sequence[Sequence[str]], style: str) -> str:
    first = "".join(f'<th scope="col">{escape(each)}</th>' for each in head)
    lines = [
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows
    ]
    head_row = f"<thead><tr>{first}</tr></thead>" if first else ""
    return (
        f'<div class="wide"><table class="{style}">{head_row}'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
