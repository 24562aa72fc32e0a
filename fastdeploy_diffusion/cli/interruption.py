"""Ctrl-C and SIGTERM, which end a command with one exit code at any point."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130  # 128 + SIGINT, as in shells

_came = False


def watch_interrupts() -> None:
    """Record Ctrl-C from now on, besides raising KeyboardInterrupt as ever.

    C extensions turn what is raised while they are imported into errors of their own, and so does
    Paddle: an import that was interrupted says that a file is missing.
    """
    # Shells have commands in the background ignore it.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def was_interrupted() -> bool:
    """Tell whether Ctrl-C came, which explains any failure."""
    return _came


def end_interrupted() -> NoReturn:
    """End the process with the exit code of an interruption."""
    print("interrupted", file=sys.stderr)
    sys.exit(INTERRUPTED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _came
    _came = True
    raise KeyboardInterrupt


@contextmanager
def interrupt_on_termination() -> Iterator[None]:
    """Let SIGTERM act as Ctrl-C within the block: children end, partial results are kept.

    Raises:
        KeyboardInterrupt: SIGTERM has come.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        # A handler that is not Python's, as Paddle's, cannot be put back.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
