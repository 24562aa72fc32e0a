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
        "import sys\nfrom fastdeploy_diffusion.cli import progress\n"
        "progress.SECONDS_BETWEEN_LINES = 3600\n"
        "from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor\n"
        "stream = DiffusionPredictor.stream\n"
        "def watched(*arguments):\n"
        "    for event in stream(*arguments):\n"
        "        print('step', file=sys.stderr, flush=True)\n"
        "        yield event\n"
        f"DiffusionPredictor.stream = watched\n{MAIN}"
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


# Sends Ctrl-C when a module is imported; what comes of it is left to who catches it.
INTERRUPTED_IMPORT = """
import builtins, os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
import_module, target = builtins.__import__, sys.argv.pop(1)
def interrupt(name, globals=None, locals=None, names=(), level=0):
    if name == target or target in (names or ()):
        builtins.__import__ = import_module
        CATCH
    return import_module(name, globals, locals, names, level)
builtins.__import__ = interrupt
"""
KILL = "os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
# Comes when a library is being loaded, which takes longer.
SEND = "import subprocess; subprocess.Popen(['sh', '-c', f'sleep 0.02; kill -INT {os.getpid()}'])"
# What some C extensions make of it.
TURN = f"""
        try:
            {KILL}
        except BaseException:
            raise ImportError("the library is damaged") from None
"""


# The first four are what the package and its command line import before all others.
@pytest.mark.parametrize(
    ("module", "catch"),
    [
        ("typing", KILL),
        ("importlib", KILL),
        ("fastdeploy_diffusion.cli.interruption", KILL),
        ("signal", KILL),
        ("typer", KILL),
        ("pydantic", KILL),
        ("pydantic", TURN),
        ("numpy", KILL),
        ("paddle", SEND),
        ("libpaddle", SEND),
    ],
)
def test_ctrl_c_in_an_import_ends_with_130(tiny_sd1, tmp_path, module, catch):
    code = f"{INTERRUPTED_IMPORT.replace('CATCH', catch)}{MAIN}"
    process = start(code, tmp_path, module, "generate", "x", "--model", tiny_sd1)
    stdout, stderr = process.communicate()
    assert (process.returncode, stdout, stderr) == (130, "", "interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_importing_the_command_line_imports_nothing_else(tmp_path):
    """What it imported, Ctrl-C could come in before ``main`` catches it."""
    code = (
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nbefore = {{*sys.modules}}\n"
        "from fastdeploy_diffusion.cli import main\nprint(*sorted({*sys.modules} - before))"
    )
    # -S: without site-packages, whose hooks import much before the script begins.
    command = [sys.executable, "-I", "-S", "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert process.stdout.split() == ["fastdeploy_diffusion", "fastdeploy_diffusion.cli"]


def test_what_is_wrong_is_said_without_paddle(tiny_sd1, tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "c.yaml").write_text("model_path: none\nengin: paddle\n")
    commands = [
        ("generate", "x", "-o", "a.png"),
        ("generate", "x", "--config", "c.yaml"),
        ("generate", "x", "--model", "none/such"),
        ("generate", "x", "--model", str(tiny_sd1), "--height", "31"),
        ("generate", "x", "--model", str(tiny_sd1), "--guidance-scale", "nan"),
        ("generate", "x", "--model", str(tiny_sd1), "--seed", str(2**64)),
        ("generate", "x", "--model", str(tiny_sd1), "--true-cfg-scale", "2"),
        ("build", "--model", "none/such"),
        ("passes", "--model", "none/such"),
        ("tune", "--model", "none/such"),
        ("explain", "--model", "none/such"),
    ]
    # One process for all: each must leave Paddle alone.
    code = (
        "import sys\nfrom fastdeploy_diffusion.cli import main\n"
        f"for words in {commands!r}:\n"
        "    sys.argv[1:] = words\n"
        "    try: main()\n"
        "    except SystemExit as end: print(end.code, 'paddle' in sys.modules)\n"
    )
    process = start(code, tmp_path)
    stdout, stderr = process.communicate()
    assert stdout == "2 False\n" * len(commands), stderr
    assert stderr.count("error: ") == len(commands)


def test_a_closed_pipe_is_no_complaint(tmp_path):
    process = start(MAIN, tmp_path, "info")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1
    process.stderr.close()
