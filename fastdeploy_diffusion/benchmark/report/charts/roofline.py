"""How far each component is from what the machine can do."""

from collections.abc import Sequence

from fastdeploy_diffusion.benchmark.report.point_names import write_names
from fastdeploy_diffusion.benchmark.report.svg import WIDTH, Drawing, Figure, Scale, draw_axis
from fastdeploy_diffusion.benchmark.roofline.roofline import Roofline

_TOP, _BOTTOM = 16, 236
_CAPTION = (
    "The line is what the engine reaches at best here: as fast as memory to the left, as its "
    "fastest matrix product or convolution to the right. FLOPs are those of the rewritten network; "
    "bytes are those of inputs, weights and outputs, each once."
)


def draw_roofline(rooflines: Sequence[Roofline]) -> Figure | None:
    """Draw FLOP/s against FLOPs for each byte; nothing if nothing was measured."""
    if not rooflines:
        return None
    peaks = rooflines[0].peaks
    reached = [each.flops / each.p50 for each in rooflines]
    ridge = peaks.flops / peaks.bandwidth if peaks.bandwidth else None
    places = [each.intensity for each in rooflines] + ([ridge] if ridge else [])
    across = Scale(0.5 * min(places), 2 * max(places), 62, WIDTH - 14, is_log=True)
    up = Scale(0.5 * min(reached), 1.5 * max(peaks.flops, *reached), _BOTTOM, _TOP, is_log=True)
    drawing = Drawing("FLOP/s against FLOPs for each byte", _BOTTOM + 34)
    draw_axis(drawing, across, _TOP, _BOTTOM, [f"{tick:g}" for tick in across.ticks()])
    drawing.text(across.end, _BOTTOM + 29, "FLOP/byte", "small", "end")
    for tick in up.ticks():
        drawing.line(across.start, up.place(tick), across.end, up.place(tick), "grid")
        drawing.text(across.start - 6, up.place(tick) + 4, _write_rate(tick), "small", "end")
    level = up.place(peaks.flops)
    start = across.start
    if ridge and peaks.bandwidth:
        lowest = max(across.low, up.low / peaks.bandwidth)
        start = across.place(ridge)
        drawing.line(across.place(lowest), up.place(lowest * peaks.bandwidth), start, level, "roof")
    drawing.line(start, level, across.end, level, "roof")
    named = []
    for each, rate in zip(rooflines, reached, strict=True):
        x, y = across.place(each.intensity), up.place(rate)
        says = f"{each.component}: {_write_rate(rate)}, {each.share:.0%} of the limit"
        data = {"component": each.component, "share": f"{each.share:.6g}"}
        drawing.dot(x, y, 5, "c2", says, **data)
        named.append((x, y, f"{each.component} {each.share:.0%}"))
    write_names(drawing, named, _TOP, _BOTTOM)
    return Figure("roofline", "How far from the limit", drawing.render(), caption=_CAPTION)


def _write_rate(flops: float) -> str:
    return f"{flops / 1e9:.3g} G/s" if flops < 1e12 else f"{flops / 1e12:.3g} T/s"
