"""How a command ends: with its result, or with one readable block and the right exit code."""

import os
import sys
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from fastdeploy_diffusion.cli.warnings import show_warnings
from fastdeploy_diffusion.errors import DiffusionError

INTERRUPTED = 130  # 128 + SIGINT, as shells say it

_LONGEST_MESSAGE = 400


@contextmanager
def explain_errors(debug: bool) -> Iterator[list[str]]:
    """Run a command's body; explain on stderr what goes wrong in it.

    Args:
        debug: Whether to show tracebacks.

    Yields:
        The warnings shown so far; the list grows while the body runs.

    Raises:
        typer.Exit: With the exit code of what went wrong.
    """
    try:
        with show_warnings() as notices:
            yield notices
            sys.stdout.flush()
        return
    except BrokenPipeError:
        _discard_stdout()
        code = 1
    except KeyboardInterrupt:
        code = INTERRUPTED
        _explain("interrupted", debug)
    except DiffusionError as error:
        code = error.exit_code
        _explain(f"error: {error}", debug)
    except Exception as error:
        code = 1
        # Messages of runtimes can be pages long.
        text = textwrap.shorten(f"{type(error).__name__}: {error}", _LONGEST_MESSAGE)
        hint = "" if debug else "\n  fix: run again with --debug for the traceback"
        _explain(f"error: {text}{hint}", debug)
    raise typer.Exit(code)


def _explain(text: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(text, file=sys.stderr)


def _discard_stdout() -> None:
    # Nobody reads on; without this, Python would complain when it flushes stdout at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
