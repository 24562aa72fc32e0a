"""Bars of seconds: where the time of a picture goes, and what a start costs."""

import statistics
from collections.abc import Sequence

from fastdeploy_diffusion.benchmark.report.svg import Drawing, Figure, Scale, draw_axis
from fastdeploy_diffusion.benchmark.report.table import format_seconds
from fastdeploy_diffusion.benchmark.row import STAGES, Row
from fastdeploy_diffusion.benchmark.summary import summarise

_STAGE_NAMES = dict(
    zip(
        STAGES,
        ("text encoder", "prologue", "all steps", "VAE decoder", "post-processing"),
        strict=True,
    )
)
_STAGE_ROW, _STAGE_BAR = 38, 16
_STARTS = {
    "import_seconds": "import",
    "load_cold_seconds": "load cold: build, prove, keep",
    "load_warm_seconds": "load warm: from the cache",
    "first_picture_seconds": "first picture",
}
_START_BAR, _START_GAP = 9, 26


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
    bottom = _STAGE_ROW * len(rows) + 4
    drawing = Drawing("Seconds of each stage", bottom + 20)
    ticks = [format_seconds(tick) if tick else "0" for tick in scale.ticks()]
    draw_axis(drawing, scale, 0, bottom, ticks)
    for number, row in enumerate(rows):
        name, top = row.case.name, _STAGE_ROW * number
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
                _STAGE_BAR,
                f"c{index}",
                f"{name}: {_STAGE_NAMES[stage]} {format_seconds(seconds)}, {seconds / whole:.0%}",
                case=name,
                stage=stage,
                seconds=f"{seconds:.6g}",
            )
    legend = {f"c{index}": _STAGE_NAMES[stage] for index, stage in enumerate(STAGES)}
    return Figure("stages", "Where the time of a picture goes", drawing.render(), legend)


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
    bottom = sum(_START_GAP + _START_BAR * len(found) for found in figures.values()) + 4
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
                _START_BAR - 1,
                f"c{list(_STARTS).index(name)}",
                f"{case}: {_STARTS[name]} {format_seconds(seconds)}",
                case=case,
                start=name,
                seconds=f"{seconds:.6g}",
            )
            top += _START_BAR
        top += _START_GAP - 19
    legend = {f"c{index}": words for index, words in enumerate(_STARTS.values())}
    return Figure("starts", "Cold and warm start", drawing.render(), legend)
