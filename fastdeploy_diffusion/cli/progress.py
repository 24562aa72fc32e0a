"""How far a long command is, on stderr, where that is a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class ShowProgress(Protocol):
    """Shows what is being done."""

    def __call__(self, description: str, done: int, total: int, remark: str = "") -> None:
        """Show that ``done`` of ``total`` parts are done."""


@contextmanager
def show_progress(description: str) -> Iterator[ShowProgress]:
    """Show a progress bar until the block ends; without a terminal, nothing.

    Args:
        description: What is done first, as long as nobody knows how much it will be.
    """
    if not sys.stderr.isatty():
        yield lambda description, done, total, remark="": None
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

        def show(description: str, done: int, total: int, remark: str = "") -> None:
            progress.update(
                task, description=description, completed=done, total=total, remark=remark
            )

        yield show
