"""The end of a command: its result, or one readable error with the right exit code."""

import os
import sys
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from fastdeploy_diffusion.cli.interruption import INTERRUPTED, was_interrupted
from fastdeploy_diffusion.cli.warnings import show_warnings
from fastdeploy_diffusion.errors import DiffusionError

_LONGEST_MESSAGE = 400


@contextmanager
def explain_errors(debug: bool) -> Iterator[list[str]]:
    """Run a command's body; its errors are explained on stderr.

    Yields:
        The warnings shown so far; the list grows while the body runs.

    Raises:
        typer.Exit: With the exit code of the error.
    """
    try:
        with show_warnings() as notices:
            yield notices
            sys.stdout.flush()
        return
    except BrokenPipeError:
        _discard_stdout()
        code = 1
    except (Exception, KeyboardInterrupt) as error:
        code, text = _judge(error, debug)
        _explain(text, debug)
    raise typer.Exit(code)


def _judge(error: Exception | KeyboardInterrupt, debug: bool) -> tuple[int, str]:
    """Choose the exit code and the message of an error."""
    if isinstance(error, KeyboardInterrupt) or was_interrupted():
        return INTERRUPTED, "interrupted"
    if isinstance(error, DiffusionError):
        return error.exit_code, f"error: {error}"
    # Messages of runtimes can be pages long.
    text = textwrap.shorten(f"{type(error).__name__}: {error}", _LONGEST_MESSAGE)
    hint = "" if debug else "\n  fix: run again with --debug for the traceback"
    return 1, f"error: {text}{hint}"


def _explain(text: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(text, file=sys.stderr)


def _discard_stdout() -> None:
    # The reader has gone; without this, Python would complain when it flushes stdout at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
