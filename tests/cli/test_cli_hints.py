"""Options and commands of other tools are answered, and summaries are whole."""

import re

import pytest
from command_line import run

from fastdeploy_diffusion.hints import HINTS


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("generate", "x", "--t2i-adapter", "x"), "--t2i-adapter: T2I-Adapter is not there yet"),
        (("generate", "x", "--upscale", "2"), "--upscale: upscaling by a network is not there yet"),
        (("serve",), "serve: a server is not there yet"),
        (("server", "--port", "80"), "server: a server is not there yet"),
    ],
)
def test_what_is_not_there_yet_is_said(words, answer):
    error = run(*words, code=2).stderr
    assert f"Error: {answer}" in " ".join(error.split())
    assert "Possible options" not in error


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("generate", "x", "--heigth", "8"), "--heigth"),
        (("genrate",), "No such command 'genrate'. Did you mean 'generate'?"),
        # A name that has a counterpart in Python only.
        (("generate", "x", "--torch-dtype", "x"), "--torch-dtype"),
    ],
)
def test_other_mistakes_are_answered_as_ever(words, answer):
    error = run(*words, code=2).stderr
    assert "Error: No such" in error
    assert answer in error


def test_int4_is_not_there_yet():
    assert "int4 is not there yet" in run("generate", "x", "--precision", "int4", code=2).stderr


@pytest.mark.parametrize("words", [(), ("cache",)])
def test_help_shows_whole_summaries(words):
    shown = " ".join(run(*words, "--help").stdout.split())
    assert "..." not in shown.replace("[ARGS]...", "")
    if not words:
        for summary in (
            "List, check and remove the builds that are kept for the next start.",
            "Try each pass alone: how often it fires, its error on the engine, its speed.",
        ):
            assert summary in shown


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_readmes_say_what_is_not_there_yet(readme):
    from test_docs import ROOT

    table = [line for line in (ROOT / readme).read_text("utf-8").splitlines() if line[:1] == "|"]
    missing = next(line for line in table if "textual inversion" in line)
    for name in ("textual inversion",):
        assert name in missing
        known = name.lower().replace(" ", "_")
        assert HINTS[known].missing
    assert re.search("not yet|尚未支持", missing)
