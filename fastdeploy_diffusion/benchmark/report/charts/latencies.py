"""How steady pictures are."""

from collections.abc import Sequence

from fastdeploy_diffusion.benchmark.report.svg import Drawing, Figure, Scale, draw_axis
from fastdeploy_diffusion.benchmark.report.table import format_seconds
from fastdeploy_diffusion.benchmark.row import Row
from fastdeploy_diffusion.benchmark.summary import summarise

_ROW = 40
_CAPTION = (
    "Each dot is one picture, as far from its row's median as it was quicker or slower; half of "
    "them lie in the bar."
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
    return Figure("latencies", "How steady pictures are", drawing.render(), caption=_CAPTION)
