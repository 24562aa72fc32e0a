"""Where the time of a picture goes."""

import statistics
from collections.abc import Sequence

from fastdeploy_diffusion.benchmark.report.svg import Drawing, Figure, Scale, draw_axis
from fastdeploy_diffusion.benchmark.report.table import format_seconds
from fastdeploy_diffusion.benchmark.row import STAGES, Row
from fastdeploy_diffusion.benchmark.summary import summarise

_NAMES = dict(
    zip(
        STAGES,
        ("text encoder", "prologue", "all steps", "VAE decoder", "post-processing"),
        strict=True,
    )
)
_ROW, _BAR = 38, 16


def draw_stage_bars(rows: Sequence[Row]) -> Figure | None:
    """Draw a bar for each row, of its stages' medians; nothing if no row has stages."""
    rows = [row for row in rows if row.samples.pictures and row.samples.stages]
    if not rows:
        return None
    medians = {
        row.case.name: {
            stage: statistics.median(samples)
            for stage in STAGES
            if (samples := row.samples.stage_per_picture(stage))
        }
        for row in rows
    }
    scale = Scale(0, max(sum(stages.values()) for stages in medians.values()))
    bottom = _ROW * len(rows) + 4
    drawing = Drawing("Seconds of each stage", bottom + 20)
    ticks = [format_seconds(tick) if tick else "0" for tick in scale.ticks()]
    draw_axis(drawing, scale, 0, bottom, ticks)
    for number, row in enumerate(rows):
        name, top = row.case.name, _ROW * number
        whole = summarise(row.samples.pictures).p50
        drawing.text(scale.start, top + 14, f"{name}, {format_seconds(whole)}", "label")
        before = 0.0
        for index, stage in enumerate(STAGES):
            if stage not in medians[name]:
                continue
            seconds = medians[name][stage]
            x = scale.place(before)
            before += seconds
            drawing.bar(
                x,
                top + 19,
                scale.place(before) - x,
                _BAR,
                f"c{index}",
                f"{name}: {_NAMES[stage]} {format_seconds(seconds)}, {seconds / whole:.0%}",
                case=name,
                stage=stage,
                seconds=f"{seconds:.6g}",
            )
    legend = {f"c{index}": _NAMES[stage] for index, stage in enumerate(STAGES)}
    return Figure("stages", "Where the time of a picture goes", drawing.render(), legend)
