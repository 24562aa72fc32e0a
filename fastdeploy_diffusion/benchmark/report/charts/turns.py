"""Who was faster, pair by pair."""

from collections.abc import Sequence

from fastdeploy_diffusion.benchmark.report.svg import Drawing, Figure, Scale, draw_axis
from fastdeploy_diffusion.benchmark.report.table import write_ratio
from fastdeploy_diffusion.benchmark.result import Comparison
from fastdeploy_diffusion.benchmark.summary import summarise

_ROW = 40
_CAPTION = (
    "Each dot is a pair of pictures drawn one after the other; right of 1 ours was faster. The bar "
    "holds the middle half."
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
    return Figure("turns", "Ours against theirs, in turns", drawing.render(), caption=_CAPTION)
