"""Warnings for people: one line each on stderr, and each once."""

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_LONGEST = 400
_PACKAGE = __name__.partition(".")[0]
_FURTHER_LINE = re.compile(r"\n\s*(allowed|fix): ")


@contextmanager
def show_warnings() -> Iterator[list[str]]:
    """Show Python's warnings and this package's log as lines ``warning: …`` on stderr.

    Yields:
        The texts shown so far; the list grows.
    """
    shown = _Lines()
    logger = logging.getLogger(_PACKAGE)
    with warnings.catch_warnings():
        # A fallback must be seen, at any value of PYTHONWARNINGS.
        warnings.filterwarnings("always", category=UserWarning, module=rf"{_PACKAGE}\b")
        warnings.showwarning = shown.show
        logger.addHandler(shown)
        try:
            yield shown.texts
        finally:
            logger.removeHandler(shown)


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())

    def show(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> Any:
        """Replace ``warnings.showwarning``."""
        self._say(str(message))

    def _say(self, message: str) -> None:
        # Errors that became warnings have lines for what is allowed and what to do.
        text = " ".join(_FURTHER_LINE.sub(r"; \1: ", message).split())
        if len(text) > _LONGEST:
            text = text[: _LONGEST - 1] + "…"
        if text not in self.texts:  # three networks fall back for one and the same reason
            self.texts.append(text)
            print(f"warning: {text}", file=sys.stderr)
