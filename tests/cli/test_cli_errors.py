"""How commands end: one readable block, no more, and the right exit code."""

import io
import json
import logging
import os
import subprocess
import sys
import warnings

import pytest
import typer

from fastdeploy_diffusion.cli.errors import explain_errors
from fastdeploy_diffusion.cli.json_text import to_json
from fastdeploy_diffusion.errors import CacheError


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
from fastdeploy_diffusion.cli.json_text import to_json
from fastdeploy_diffusion.errors import CacheError

try:
    with explain_errors(False):
        print("a row of a table")
except typer.Exit as ended:
    sys.exit(ended.exit_code)
"""


@pytest.mark.skipif(os.name != "posix", reason="pipes are others there")
def test_who_reads_no_further_hears_no_complaint():
    """As `head` does: what was printed lies in a buffer until the command has ended."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", COMMAND],
            env=environment,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_a_warning_of_an_error_reads_as_one_sentence_after_the_other(capsys):
    error = CacheError("/c: Read-only file system", allowed="a folder", fix="make room there")
    with explain_errors(debug=False):
        warnings.warn_explicit(
            f"not kept: {error}", UserWarning, "a.py", 1, "fastdeploy_diffusion.a"
        )
    assert capsys.readouterr().err == (
        "warning: not kept: /c: Read-only file system; allowed: a folder; fix: make room there\n"
    )


@pytest.mark.parametrize(("encoding", "text"), [("utf-8", "白色"), ("ascii", "\\u767d\\u8272")])
def test_json_keeps_chinese_where_stdout_can_show_it(encoding, text, monkeypatch):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", stdout)
    written = to_json({"prompt": "白色 é 😀"})
    assert text in written
    assert json.loads(written.encode(encoding)) == {"prompt": "白色 é 😀"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(float("nan"))
