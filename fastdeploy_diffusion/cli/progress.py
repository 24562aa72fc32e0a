"""Progress of long commands on stderr: a bar on a terminal, elsewhere a line now and then."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

SECONDS_BETWEEN_LINES = 5.0


class ShowProgress(Protocol):
    """Shows the present task, and how far it is."""

    def __call__(
        self, description: str, done: int, total: int, remark: str = "", unit: str = ""
    ) -> None:
        """Show that ``done`` of ``total`` are done, in ``unit``."""


@contextmanager
def show_progress(description: str) -> Iterator[ShowProgress]:
    """Show progress until the block ends; in a short command without a terminal, nothing."""
    if not sys.stderr.isatty():
        with _write_lines(description) as show:
            yield show
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[remark]}"),
        console=Console(stderr=True),
        redirect_stdout=False,
        transient=True,
    ) as progress:
        task = progress.add_task(description, total=None, remark="")

        def show_bar(
            description: str, done: int, total: int, remark: str = "", unit: str = ""
        ) -> None:
            progress.update(
                task, description=description, completed=done, total=total, remark=remark
            )

        yield show_bar


@contextmanager
def _write_lines(description: str) -> Iterator[ShowProgress]:
    """Write the progress every few seconds, for logs and pipes.

    On a thread, for long tasks, such as builds, may show nothing meanwhile.
    """
    started = time.monotonic()
    ended = threading.Event()
    text = description

    def show(description: str, done: int, total: int, remark: str = "", unit: str = "") -> None:
        nonlocal text
        parts = (description, f"{unit} {done} of {total}".lstrip(), remark)
        text = ", ".join(filter(None, parts))

    def write() -> None:
        while not ended.wait(SECONDS_BETWEEN_LINES):
            seconds = time.monotonic() - started
            try:
                print(f"{text} ({seconds:.0f} s)", file=stream, flush=True)
            except (OSError, ValueError):  # it is closed
                return

    stream = sys.stderr
    writer = threading.Thread(target=write, name="progress", daemon=True)
    writer.start()
    try:
        yield show
    finally:
        ended.set()
        writer.join()
