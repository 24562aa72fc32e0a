"""What speed costs in quality."""

from collections.abc import Sequence

from fastdeploy_diffusion.benchmark.report.point_names import write_names
from fastdeploy_diffusion.benchmark.report.svg import WIDTH, Drawing, Figure, Scale, draw_axis
from fastdeploy_diffusion.benchmark.report.table import format_psnr, format_seconds
from fastdeploy_diffusion.benchmark.row import Row
from fastdeploy_diffusion.benchmark.summary import summarise

_TOP, _BOTTOM = 16, 236
_CAPTION = (
    "To the left is faster, up is nearer to the picture of the Paddle layers in float32. The "
    "uppermost line is for identical pictures."
)


def draw_speed_and_quality(rows: Sequence[Row]) -> Figure | None:
    """Draw a point for each row: seconds of a picture, and its PSNR; nothing without rows."""
    rows = [row for row in rows if row.samples.pictures]
    if not rows:
        return None
    seconds = [summarise(row.samples.pictures).p50 for row in rows]
    psnr = [row.quality.psnr for row in rows]
    known = [each for each in psnr if each is not None] or [40.0]
    across = Scale(0.8 * min(seconds), 1.25 * max(seconds), 60, WIDTH - 14, is_log=True)
    low, high = 10 * (min(known) // 10), 10 * (max(known) // 10 + 2)
    up = Scale(low, high, _BOTTOM, _TOP)
    places = [
        (across.place(x), up.place(high if y is None else y))
        for x, y in zip(seconds, psnr, strict=True)
    ]
    drawing = Drawing("Seconds of a picture, and its PSNR", _BOTTOM + 20)
    draw_axis(drawing, across, _TOP, _BOTTOM, [format_seconds(tick) for tick in across.ticks()])
    labels = {tick: f"{tick:.0f} dB" for tick in up.ticks() if tick < high - 5}
    for tick, label in {**labels, high: "identical"}.items():
        y = up.place(tick)
        drawing.line(across.start, y, across.end, y, "grid")
        drawing.text(across.start - 6, y + 4, label, "small", "end")
    for row, (x, y) in zip(rows, places, strict=True):
        name, took = row.case.name, summarise(row.samples.pictures).p50
        says = f"{name}: {format_seconds(took)}, {format_psnr(row.quality)}"
        data = {"case": name, "seconds": f"{took:.6g}", "psnr": format_psnr(row.quality)}
        drawing.dot(x, y, 5, "c2", says, **data)
    names = [(x, y, row.case.name) for row, (x, y) in zip(rows, places, strict=True)]
    write_names(drawing, names, _TOP, _BOTTOM)
    return Figure("quality", "Speed against quality", drawing.render(), caption=_CAPTION)
