"""What only a process of its own can show: imports, signals, pipes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"PIL", "numpy", "paddle", "pydantic", "rich", "safetensors", "tokenizers", "yaml"}


def start(code, folder, *words):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


MAIN = "from fastdeploy_diffusion.cli import main; main()"


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_imports_nothing_heavy(tmp_path, word):
    process = start(
        "import sys\nfrom fastdeploy_diffusion.cli import main\n"
        "try: main()\nfinally: print(*sys.modules, file=sys.stderr)",
        tmp_path,
        word,
    )
    _, modules = process.communicate()
    assert process.returncode == 0
    assert "typer" in modules.split()
    assert HEAVY & set(modules.split()) == set()


@pytest.mark.serial
def test_ctrl_c_ends_with_130_and_leaves_nothing(tiny_sd1, tmp_path):
    # The event of the first step tells that the loop runs; nothing else is changed.
    code = (
        # A test run in the background is started with this signal ignored, and so is its child.
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import sys\nfrom fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor\n"
        "run = DiffusionPredictor._run\n"
        "def watched(*arguments):\n"
        "    for event in run(*arguments):\n"
        "        print('step', file=sys.stderr, flush=True)\n"
        "        yield event\n"
        f"DiffusionPredictor._run = watched\n{MAIN}"
    )
    options = ("--model", tiny_sd1, "--engine", "paddle-eager", "--steps", 900, "-o", "new")
    process = start(code, tmp_path, "generate", "x", *options)
    assert process.stderr.readline() == "step\n"
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate()
    assert process.returncode == 130
    assert stdout == ""
    assert stderr.replace("step\n", "") == "interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_is_no_complaint(tmp_path):
    process = start(MAIN, tmp_path, "info")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1
    process.stderr.close()
