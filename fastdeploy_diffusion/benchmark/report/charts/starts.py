"""What a start costs, cold and warm."""

from collections.abc import Sequence

from fastdeploy_diffusion.benchmark.report.svg import Drawing, Figure, Scale, draw_axis
from fastdeploy_diffusion.benchmark.report.table import format_seconds
from fastdeploy_diffusion.benchmark.row import Row

_STARTS = {
    "import_seconds": "import",
    "load_cold_seconds": "load cold: build, prove, keep",
    "load_warm_seconds": "load warm: from the cache",
    "first_picture_seconds": "first picture",
}
_BAR, _GAP = 9, 26


def draw_starts(rows: Sequence[Row]) -> Figure | None:
    """Draw bars of importing, loading and the first picture; nothing if none was measured."""
    figures = {
        row.case.name: {
            name: seconds for name in _STARTS if (seconds := getattr(row.samples, name)) is not None
        }
        for row in rows
    }
    figures = {case: found for case, found in figures.items() if found}
    if not figures:
        return None
    scale = Scale(0, max(max(found.values()) for found in figures.values()))
    bottom = sum(_GAP + _BAR * len(found) for found in figures.values()) + 4
    drawing = Drawing("Seconds of a start", bottom + 20)
    ticks = [format_seconds(tick) if tick else "0" for tick in scale.ticks()]
    draw_axis(drawing, scale, 0, bottom, ticks)
    top = 0
    for case, found in figures.items():
        drawing.text(scale.start, top + 14, case, "label")
        top += 19
        for name, seconds in found.items():
            drawing.bar(
                scale.start,
                top,
                scale.place(seconds) - scale.start,
                _BAR - 1,
                f"c{list(_STARTS).index(name)}",
                f"{case}: {_STARTS[name]} {format_seconds(seconds)}",
                case=case,
                start=name,
                seconds=f"{seconds:.6g}",
            )
            top += _BAR
        top += _GAP - 19
    legend = {f"c{index}": words for index, words in enumerate(_STARTS.values())}
    return Figure("starts", "Cold and warm start", drawing.render(), legend)
