"""How commands end: one readable block, no more, and the right exit code."""

import logging
import os
import subprocess
import sys
import warnings

import pytest
import typer

from fastdeploy_diffusion.cli.errors import explain_errors


def test_an_unexpected_error_is_one_line(capsys):
    def end(debug):
        with pytest.raises(typer.Exit) as ended, explain_errors(debug):
            raise ValueError("two\nlines " + "and more " * 100)
        assert ended.value.exit_code == 1
        return capsys.readouterr().err

    first, second = end(debug=False).splitlines()
    assert first.startswith("error: ValueError: two lines and more")
    assert len(first) < 420
    assert second == "  fix: run again with --debug for the traceback"
    assert end(debug=True).startswith("Traceback")


def test_warnings_are_shown_once_each(capsys):
    with explain_errors(debug=False) as notices:
        for text in ("one\nline", "one\nline", "another"):
            warnings.warn_explicit(text, UserWarning, "a.py", 1, "fastdeploy_diffusion.a")
        logging.getLogger("fastdeploy_diffusion.schedulers.create").warning("a %s", "third")
    assert notices == ["one line", "another", "a third"]
    lines = "warning: one line\nwarning: another\nwarning: a third\n"
    assert capsys.readouterr().err == lines


def test_a_warning_is_not_endless(capsys):
    with explain_errors(debug=False) as notices:
        text = "it is read-only " + "红" * 1000
        warnings.warn_explicit(text, UserWarning, "a.py", 1, "fastdeploy_diffusion.a")
    assert notices == [text[:399] + "…"]
    assert capsys.readouterr().err == f"warning: {notices[0]}\n"


COMMAND = """
import sys
import typer
from fastdeploy_diffusion.cli.errors import explain_errors

try:
    with explain_errors(False):
        print("a row of a table")
except typer.Exit as ended:
    sys.exit(ended.exit_code)
"""


@pytest.mark.skipif(os.name != "posix", reason="pipes are others there")
def test_who_reads_no_further_hears_no_complaint():
    """As `head` does: what was printed lies in a buffer until the command has ended."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", COMMAND], stdout=writing, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")
