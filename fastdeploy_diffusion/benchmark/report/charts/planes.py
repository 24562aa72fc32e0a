"""Points on two axes: speed and quality, how cost grows, how far the limit is."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from fastdeploy_diffusion.benchmark.report.point_names import write_names
from fastdeploy_diffusion.benchmark.report.svg import WIDTH, Drawing, Figure, Scale, draw_axis
from fastdeploy_diffusion.benchmark.report.table import format_bytes, format_psnr, format_seconds
from fastdeploy_diffusion.benchmark.roofline.roofline import Roofline
from fastdeploy_diffusion.benchmark.row import Row
from fastdeploy_diffusion.benchmark.summary import summarise
from fastdeploy_diffusion.benchmark.sweep import SWEEPS, Growth

_TOP, _BOTTOM = 16, 236
_QUALITY_CAPTION = (
    "To the left is faster, up is nearer to the picture of the Paddle layers in float32. The "
    "uppermost line is for identical pictures."
)
_COLOURS = 5
_GROWTH_CAPTION = (
    "Both scales are logarithmic: a straight line is a power, and its exponent is that of the "
    "legend. 1 is twice as much for twice as much."
)
_ROOFLINE_CAPTION = (
    "The line is what the engine reaches at best here: as fast as memory to the left, as its "
    "fastest matrix product or convolution to the right. FLOPs are those of the rewritten network; "
    "bytes are those of inputs, weights and outputs, each once."
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
    return Figure("quality", "Speed against quality", drawing.render(), caption=_QUALITY_CAPTION)


def draw_growth(growths: Sequence[Growth], sweep: str) -> Figure | None:
    """Draw the time of a request; nothing if there are not two points."""
    lines = {each.name: each.seconds for each in growths}
    exponents = {each.name: each.exponent for each in growths}
    return _draw_growth(growths, sweep, "growth", "How time grows", lines, exponents)


def draw_memory_growth(growths: Sequence[Growth], sweep: str) -> Figure | None:
    """Draw the peak memory; nothing if there are not two points that are known."""
    growths = [each for each in growths if each.memory]
    lines = {each.name: each.memory or () for each in growths}
    exponents = {each.name: each.memory_exponent for each in growths}
    return _draw_growth(growths, sweep, "memory", "How memory grows", lines, exponents)


def _draw_growth(
    growths: Sequence[Growth],
    sweep: str,
    name: str,
    title: str,
    lines: Mapping[str, Sequence[float]],
    exponents: Mapping[str, float | None],
) -> Figure | None:
    words, _ = SWEEPS[sweep]
    growths = [each for each in growths if exponents[each.name] is not None]
    if not growths:
        return None
    write = format_seconds if name == "growth" else lambda size: format_bytes(int(size))
    places = [place for each in growths for place in each.places]
    costs = [cost for each in growths for cost in lines[each.name]]
    across = Scale(0.9 * min(places), 1.1 * max(places), 70, WIDTH - 14, is_log=True)
    up = Scale(0.8 * min(costs), 1.25 * max(costs), _BOTTOM, _TOP, is_log=True)
    drawing = Drawing(f"{title} with {words}", _BOTTOM + 34)
    draw_axis(drawing, across, _TOP, _BOTTOM, [f"{tick:g}" for tick in across.ticks()])
    drawing.text(across.end, _BOTTOM + 29, words, "small", "end")
    for cost in _choose_levels(costs):
        y = up.place(cost)
        drawing.line(across.start, y, across.end, y, "grid")
        drawing.text(across.start - 6, y + 4, write(cost), "small", "end")
    legend: dict[str, str] = {}
    for index, each in enumerate(growths):
        style = f"c{index % _COLOURS}"
        key = f"{each.name}: {exponents[each.name]:.2f}"
        # With more cases than colours, some share one.
        legend[style] = f"{legend[style]}; {key}" if style in legend else key
        points = [
            (across.place(place), up.place(cost))
            for place, cost in zip(each.places, lines[each.name], strict=True)
        ]
        for (x1, y1), (x2, y2) in pairwise(points):
            drawing.line(x1, y1, x2, y2, f"way s{index % _COLOURS}")
        for (x, y), place, cost in zip(points, each.places, lines[each.name], strict=True):
            says = f"{each.name}: {write(cost)} at {place} {words}"
            drawing.dot(x, y, 4, style, says, case=each.name, place=place, cost=f"{cost:.6g}")
    return Figure(name, f"{title} with {words}", drawing.render(), legend, _GROWTH_CAPTION)


def _choose_levels(costs: Sequence[float]) -> list[float]:
    """The least and the greatest cost, and two between them: round ones may all lie outside."""
    low, high = min(costs), max(costs)
    return sorted({low * (high / low) ** (part / 3) for part in range(4)})


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
    return Figure("roofline", "How far from the limit", drawing.render(), caption=_ROOFLINE_CAPTION)


def _write_rate(flops: float) -> str:
    return f"{flops / 1e9:.3g} G/s" if flops < 1e12 else f"{flops / 1e12:.3g} T/s"
