"""What a long command does when it is told to end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupt_on_termination() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does, within the block: children end, what is known is kept.

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
