"""The report's folder, and what lies in it."""

import csv
import io
import os
from datetime import datetime
from pathlib import Path

from fastdeploy_diffusion.benchmark.report.html import format_html
from fastdeploy_diffusion.benchmark.report.markdown import format_markdown
from fastdeploy_diffusion.benchmark.result import RESULT_FILE, BenchmarkResult
from fastdeploy_diffusion.benchmark.row import Row
from fastdeploy_diffusion.errors import ConfigError

_CSV_HEADER = (
    *("painter", "engine", "device", "precision", "width", "height", "batch", "steps", "threads"),
    *("what", "number", "seconds"),
)
_CSV_STARTS = ("import_seconds", "load_cold_seconds", "load_warm_seconds", "first_picture_seconds")


def choose_folder(output: str | None) -> Path:
    """Make the folder of a report, before the work, so that the work is not in vain.

    Args:
        output: Where; a name with the time in the working directory if left out.

    Raises:
        ConfigError: It holds something already, or cannot be made.
    """
    name = output or f"benchmark-{datetime.now():%Y%m%d-%H%M%S}"
    folder = Path(os.path.expanduser(name))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_empty = not any(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"--output {name} cannot be made: {error.strerror}") from None
    if not is_empty:
        raise ConfigError(
            f"--output {name} holds something already", allowed="a new or an empty folder"
        )
    return folder


def write_report(result: BenchmarkResult, folder: Path) -> Path:
    """Write ``result.json``, ``report.html``, ``report.md`` and ``samples.csv``.

    Returns:
        The page to look at.
    """
    page = folder / "report.html"
    for name, text in {
        RESULT_FILE: result.model_dump_json(indent=2) + "\n",
        "report.md": format_markdown(result),
        "samples.csv": format_csv(result),
        page.name: format_html(result),
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    return page


def format_csv(result: BenchmarkResult) -> str:
    """Write the samples of all rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_HEADER)
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
        for name in _CSV_STARTS
        if (seconds := getattr(row.samples, name)) is not None
    }
    return {**starts, "picture": row.samples.pictures, **row.samples.stages}
