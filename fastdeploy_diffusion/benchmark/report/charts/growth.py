"""How time and memory grow along a sweep."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from fastdeploy_diffusion.benchmark.report.svg import WIDTH, Drawing, Figure, Scale, draw_axis
from fastdeploy_diffusion.benchmark.report.table import format_bytes, format_seconds
from fastdeploy_diffusion.benchmark.sweep import SWEEPS, Growth

_TOP, _BOTTOM = 16, 236
_COLOURS = 5
_CAPTION = (
    "Both scales are logarithmic: a straight line is a power, and its exponent is that of the "
    "legend. 1 is twice as much for twice as much."
)


def draw_growth(growths: Sequence[Growth], sweep: str) -> Figure | None:
    """Draw the time of a request; nothing if there are not two points."""
    lines = {each.name: each.seconds for each in growths}
    exponents = {each.name: each.exponent for each in growths}
    return _draw(growths, sweep, "growth", "How time grows", lines, exponents)


def draw_memory_growth(growths: Sequence[Growth], sweep: str) -> Figure | None:
    """Draw the peak memory; nothing if there are not two points that are known."""
    growths = [each for each in growths if each.memory]
    lines = {each.name: each.memory or () for each in growths}
    exponents = {each.name: each.memory_exponent for each in growths}
    return _draw(growths, sweep, "memory", "How memory grows", lines, exponents)


def _draw(
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
    return Figure(name, f"{title} with {words}", drawing.render(), legend, _CAPTION)


def _choose_levels(costs: Sequence[float]) -> list[float]:
    """The least and the greatest cost, and two between them: round ones may all lie outside."""
    low, high = min(costs), max(costs)
    return sorted({low * (high / low) ** (part / 3) for part in range(4)})
