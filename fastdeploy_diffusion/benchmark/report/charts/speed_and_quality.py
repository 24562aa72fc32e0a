"""What speed costs in quality."""

from collections.abc import Sequence

from fastdeploy_diffusion.benchmark.report.svg import WIDTH, Drawing, Figure, Scale, draw_axis
from fastdeploy_diffusion.benchmark.report.table import format_psnr, format_seconds
from fastdeploy_diffusion.benchmark.result import Row
from fastdeploy_diffusion.benchmark.summary import summarise

_TOP, _BOTTOM, _LINE = 16, 236, 13
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
    drawing = Drawing("Seconds of a picture, and its PSNR", _BOTTOM + 36)
    draw_axis(drawing, across, _TOP, _BOTTOM, [format_seconds(tick) for tick in across.ticks()])
    for tick in up.ticks():
        y = up.place(tick)
        drawing.line(across.start, y, across.end, y, "grid")
        label = "identical" if tick == up.ticks()[-1] else f"{tick:.0f} dB"
        drawing.text(across.start - 6, y + 4, label, "small", "end")
    taken: list[float] = []
    for row, x_value, y_value in zip(rows, seconds, psnr, strict=True):
        name = row.case.name
        x, y = across.place(x_value), up.place(high if y_value is None else y_value)
        says = f"{name}: {format_seconds(x_value)}, {format_psnr(row.quality)}"
        data = {"case": name, "seconds": f"{x_value:.6g}", "psnr": format_psnr(row.quality)}
        drawing.dot(x, y, 5, "c2", says, **data)
        line = y + 16
        while any(abs(line - other) < _LINE for other in taken):
            line += _LINE  # names must not lie on each other
        taken.append(line)
        drawing.text(x, line, name, "small", "end" if x > WIDTH / 2 else "start")
    return Figure("quality", "Speed against quality", drawing.render(), caption=_CAPTION)
