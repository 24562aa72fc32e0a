"""Every raw sample on a line of its own, for spreadsheets."""

import csv
import io

from fastdeploy_diffusion.benchmark.result import BenchmarkResult
from fastdeploy_diffusion.benchmark.row import Row

HEADER = (
    *("painter", "engine", "device", "precision", "width", "height", "batch", "steps", "threads"),
    *("what", "number", "seconds"),
)
_STARTS = ("import_seconds", "load_cold_seconds", "load_warm_seconds", "first_picture_seconds")


def format_csv(result: BenchmarkResult) -> str:
    """Write the samples of all rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for row in result.rows:
        case, work = row.case, row.case.work
        about = [case.painter, case.engine, case.device, case.precision]
        about += map(str, (work.width, work.height, work.batch, work.steps, work.threads))
        for what, samples in _list_samples(row).items():
            for number, seconds in enumerate(samples, 1):
                writer.writerow([*about, what, number, seconds])
    return text.getvalue()


def _list_samples(row: Row) -> dict[str, tuple[float, ...]]:
    starts = {
        name.removesuffix("_seconds"): (seconds,)
        for name in _STARTS
        if (seconds := getattr(row.samples, name)) is not None
    }
    return {**starts, "picture": row.samples.pictures, **row.samples.stages}
