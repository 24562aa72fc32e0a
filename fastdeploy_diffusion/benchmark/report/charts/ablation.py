"""What each pass is worth."""

from collections.abc import Sequence

from fastdeploy_diffusion.benchmark.report.svg import Drawing, Figure, Scale, draw_axis
from fastdeploy_diffusion.benchmark.report.table import write_ratio
from fastdeploy_diffusion.benchmark.result import Ablation
from fastdeploy_diffusion.benchmark.summary import summarise

_BAR, _GAP, _NAMES = 17, 28, 130
_CAPTION = (
    "How many times as fast a component is with a pass as without any, in turns: the dot is the "
    "median, and half of the pairs lie in the bar."
)


def draw_ablation(ablations: Sequence[Ablation]) -> Figure | None:
    """Draw the ratios of each pass on each component; nothing if none was tried."""
    if not ablations:
        return None
    ratios = {(each.component, each.passes): summarise(each.ratios) for each in ablations}
    ends = [end for each in ratios.values() for end in (each.p25, each.p75, 1.0)]
    scale = Scale(0.95 * min(ends), 1.05 * max(ends), start=_NAMES)
    components = list(dict.fromkeys(each.component for each in ablations))
    bottom = _GAP * len(components) + _BAR * len(ratios)
    drawing = Drawing("Times as fast with each pass", bottom + 20)
    draw_axis(drawing, scale, 0, bottom, [f"{tick:g}" for tick in scale.ticks()])
    drawing.line(scale.place(1), 0, scale.place(1), bottom, "even")
    top = 0
    for component in components:
        drawing.text(8, top + 15, component, "label")
        top += _GAP - 6
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
            top += _BAR
        top += 6
    return Figure("ablation", "What each pass is worth", drawing.render(), caption=_CAPTION)
