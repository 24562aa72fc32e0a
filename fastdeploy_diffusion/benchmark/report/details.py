"""What the main table has no room for: every percentile of every stage, starts, memory, energy."""

from collections.abc import Sequence

from fastdeploy_diffusion.benchmark.report.table import (
    UNKNOWN,
    format_bytes,
    format_seconds,
)
from fastdeploy_diffusion.benchmark.row import STAGES, Row
from fastdeploy_diffusion.benchmark.summary import summarise

LATENCY_HEADINGS = ("case", "what", "n", "min", "p50", "p90", "p95", "p99", "mean")
RESOURCE_HEADINGS = (
    *("case", "import", "load cold", "load warm", "first picture", "peak memory"),
    *("steady memory", "GPU memory", "threads", "energy"),
)


def list_latencies(rows: Sequence[Row]) -> list[list[str]]:
    """Sum up whole pictures and each stage: cells under ``LATENCY_HEADINGS``."""
    lines = []
    for row in rows:
        figures = {"picture": row.samples.pictures}
        figures |= {stage: row.samples.stages.get(stage, ()) for stage in STAGES}
        for what, samples in figures.items():
            if samples:
                found = summarise(samples)
                points = (found.minimum, found.p50, found.p90, found.p95, found.p99, found.mean)
                about = [row.case.name, what.replace("_", " "), str(found.count)]
                lines.append([*about, *map(format_seconds, points)])
    return lines


def list_resources(rows: Sequence[Row]) -> list[list[str]]:
    """Say what starting took, and memory, threads and energy: cells under ``RESOURCE_HEADINGS``."""
    return [
        [
            row.case.name,
            format_seconds(row.samples.import_seconds),
            format_seconds(row.samples.load_cold_seconds),
            format_seconds(row.samples.load_warm_seconds),
            format_seconds(row.samples.first_picture_seconds),
            format_bytes(row.samples.peak_bytes),
            format_bytes(row.samples.steady_bytes),
            format_bytes(row.samples.device_bytes),
            str(row.samples.os_threads or UNKNOWN),
            UNKNOWN if row.samples.joules is None else f"{row.samples.joules:.3g} J",
        ]
        for row in rows
    ]
