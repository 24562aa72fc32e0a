"""Charts of spread: of pictures, of pairs drawn in turns, of passes."""

from collections.abc import Sequence

from fastdeploy_diffusion.benchmark.report.svg import Drawing, Figure, Scale, draw_axis
from fastdeploy_diffusion.benchmark.report.table import format_seconds, write_ratio
from fastdeploy_diffusion.benchmark.result import Ablation, Comparison
from fastdeploy_diffusion.benchmark.row import Row
from fastdeploy_diffusion.benchmark.summary import summarise

_ROW = 40
_LATENCY_CAPTION = (
    "Each dot is one picture, as far from its row's median as it was quicker or slower; half of "
    "them lie in the bar."
)
_TURNS_CAPTION = (
    "Each dot is a pair of pictures drawn one after the other; right of 1 ours was faster. The bar "
    "holds the middle half."
)
_PASS_BAR, _PASS_GAP, _PASS_NAMES = 17, 28, 130
_PASS_CAPTION = (
    "How many times as fast a component is with a pass as without any, in turns: the dot is the "
    "median, and half of the pairs lie in the bar."
)


def draw_latencies(rows: Sequence[Row]) -> Figure | None:
    """Draw every sample of a whole picture; nothing if there is none."""
    rows = [row for row in rows if row.samples.pictures]
    if not rows:
        return None
    summaries = {row.case.name: summarise(row.samples.pictures) for row in rows}
    changes = {
        row.case.name: [each / summaries[row.case.name].p50 - 1 for each in row.samples.pictures]
        for row in rows
    }
    every = [change for each in changes.values() for change in each]
    scale = Scale(min(-0.02, *every), max(0.02, *every), 14, 426)
    bottom = _ROW * len(rows) + 4
    drawing = Drawing("Every picture's time, as a share of the median", bottom + 20)
    percents = [round(100 * tick, 6) for tick in scale.ticks()]
    draw_axis(
        drawing, scale, 0, bottom, [f"{tick:+g} %" if tick else "median" for tick in percents]
    )
    for number, row in enumerate(rows):
        name, top = row.case.name, _ROW * number
        summary = summaries[name]
        words = f"{name}, p50 {format_seconds(summary.p50)}, p99 {format_seconds(summary.p99)}"
        drawing.text(8, top + 14, words, "label")
        left, right = (scale.place(each / summary.p50 - 1) for each in (summary.p25, summary.p75))
        drawing.bar(left, top + 20, right - left, 14, "quiet", f"{name}: middle half", case=name)
        for seconds, change in zip(row.samples.pictures, changes[name], strict=True):
            says = f"{name}: {format_seconds(seconds)}, {change:+.1%}"
            drawing.dot(
                scale.place(change),
                top + 27,
                4,
                "c2 see",
                says,
                case=name,
                seconds=f"{seconds:.6g}",
            )
    return Figure(
        "latencies", "How steady pictures are", drawing.render(), caption=_LATENCY_CAPTION
    )


def draw_turns(comparisons: Sequence[Comparison]) -> Figure | None:
    """Draw the ratio of every pair; nothing if nothing was compared."""
    if not comparisons:
        return None
    every = [ratio for each in comparisons for ratio in each.ratios]
    scale = Scale(0.95 * min(1.0, *every), 1.05 * max(1.0, *every), 14, 426, is_log=True)
    bottom = _ROW * len(comparisons) + 4
    drawing = Drawing("How many times as fast, pair by pair", bottom + 20)
    draw_axis(drawing, scale, 0, bottom, [f"{tick:g}" for tick in scale.ticks()])
    drawing.line(scale.place(1), 0, scale.place(1), bottom, "even")
    for number, each in enumerate(comparisons):
        top, ratios = _ROW * number, summarise(each.ratios)
        name = f"{each.ours.name} / {each.theirs.name}"
        drawing.text(8, top + 14, f"{name}, median {write_ratio(ratios.p50)}", "label")
        left, right = scale.place(ratios.p25), scale.place(ratios.p75)
        drawing.bar(left, top + 20, right - left, 14, "quiet", f"{name}: middle half", case=name)
        for ratio in each.ratios:
            says = f"{name}: {ratio:.3f}"
            drawing.dot(
                scale.place(ratio), top + 27, 4, "c2 see", says, case=name, ratio=f"{ratio:.6g}"
            )
    return Figure(
        "turns", "Ours against theirs, in turns", drawing.render(), caption=_TURNS_CAPTION
    )


def draw_ablation(ablations: Sequence[Ablation]) -> Figure | None:
    """Draw the ratios of each pass on each component; nothing if none was tried."""
    if not ablations:
        return None
    ratios = {(each.component, each.passes): summarise(each.ratios) for each in ablations}
    ends = [end for each in ratios.values() for end in (each.p25, each.p75, 1.0)]
    scale = Scale(0.95 * min(ends), 1.05 * max(ends), start=_PASS_NAMES)
    components = list(dict.fromkeys(each.component for each in ablations))
    bottom = _PASS_GAP * len(components) + _PASS_BAR * len(ratios)
    drawing = Drawing("Times as fast with each pass", bottom + 20)
    draw_axis(drawing, scale, 0, bottom, [f"{tick:g}" for tick in scale.ticks()])
    drawing.line(scale.place(1), 0, scale.place(1), bottom, "even")
    top = 0
    for component in components:
        drawing.text(8, top + 15, component, "label")
        top += _PASS_GAP - 6
        for (name, passes), summary in ratios.items():
            if name != component:
                continue
            drawing.text(16, top + 11, passes, "small")
            left, right = scale.place(summary.p25), scale.place(summary.p75)
            says = f"{component}, {passes}: {write_ratio(summary.p50)} times as fast"
            drawing.bar(left, top + 3, right - left, 10, "quiet", says)
            drawing.dot(
                scale.place(summary.p50),
                top + 8,
                4,
                "c2",
                says,
                component=component,
                passes=passes,
                ratio=f"{summary.p50:.6g}",
            )
            top += _PASS_BAR
        top += 6
    return Figure("ablation", "What each pass is worth", drawing.render(), caption=_PASS_CAPTION)
