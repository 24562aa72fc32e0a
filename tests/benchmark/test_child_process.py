"""A measured process answers, refuses, crashes or hangs: each is told from the others."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from benchmark.painted_peer import write_adapter

from fastdeploy_diffusion.benchmark.child_process import ChildError, ChildProcess

ROOT = Path(__file__).parents[2]
TASK = {"threads": 1, "height": 16, "width": 24}


def start(adapter, time_limit=60):
    return ChildProcess(sys.executable, adapter, os.environ, time_limit)


def test_it_opens_draws_and_describes(tmp_path):
    file = tmp_path / "pictures.npy"
    with start(write_adapter(tmp_path)) as child:
        opened = child.open(TASK)
        assert opened["import_seconds"] > 0
        assert not opened["keeps_builds"]
        drawn = child.draw(["a star"] * 2, [1, 2], 3, file)
        assert drawn["seconds"] >= 0.006
        assert drawn["stages"]["step"] == [0.002] * 3
        assert child.ask("describe")["described"]["threads"] == 1
    assert np.load(file).shape == (2, 16, 24, 3)
    if sys.platform == "linux":
        assert 1e6 < drawn["resident_bytes"] <= drawn["peak_bytes"] < 1e9


def test_what_it_refuses_is_told_and_it_goes_on(tmp_path):
    adapter = write_adapter(tmp_path, draw="if steps > 4: raise ValueError('too many steps')")
    with start(adapter) as child:
        child.open(TASK)
        with pytest.raises(ChildError, match=r"^ValueError: too many steps$"):
            child.draw(["x"], [1], 5)
        assert child.draw(["x"], [1], 4)["seconds"] > 0


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("os._exit(3)", r"exit code 3, at 'open'"),
        ("os.kill(os.getpid(), signal.SIGKILL)", r"SIGKILL \(out of memory\?\), at 'open'"),
        ("sys.exit('no such model')", r"exit code 1, at 'open': .*no such model"),
    ],
)
def test_how_it_crashed_is_told(tmp_path, how, said):
    with (
        start(write_adapter(tmp_path, load=how)) as child,
        pytest.raises(ChildError, match=said),
    ):
        child.open(TASK)


def test_one_that_hangs_is_ended(tmp_path):
    started = time.monotonic()
    with start(write_adapter(tmp_path, load="time.sleep(600)"), time_limit=1) as child:
        with pytest.raises(ChildError, match="took more than 1 s, at 'open'"):
            child.open(TASK)
        with pytest.raises(ProcessLookupError):
            os.kill(child.pid, 0)
    assert time.monotonic() - started < 60


def test_an_interpreter_that_is_none(tmp_path):
    with pytest.raises(ChildError, match="does not start"):
        ChildProcess(str(tmp_path / "python"), write_adapter(tmp_path), os.environ, 1)


def test_a_dead_one_that_is_asked_again_is_still_told(tmp_path):
    with start(write_adapter(tmp_path, load="os._exit(3)")) as child:
        for _ in range(2):
            with pytest.raises(ChildError, match="exit code 3"):
                child.open(TASK)


@pytest.mark.serial
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it ends after its command")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_busy_one_ends_with_its_parent(tmp_path, how):
    adapter = write_adapter(tmp_path, load="time.sleep(600)")
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from fastdeploy_diffusion.benchmark.child_process import ChildProcess\n"
        "child = ChildProcess(sys.executable, Path(sys.argv[1]), os.environ, 600)\n"
        "print(child.pid, flush=True)\n"
        "child.open({})\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(adapter)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        child = int(parent.stdout.readline())
        time.sleep(1)  # by now it is loading
        parent.send_signal(how)
    deadline = time.monotonic() + 10
    while is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # ended, and nobody has asked how yet


# Answers at once, or after as many seconds as it is asked for: it imports nothing that takes time.
WAITER = """
import json, sys, time

for line in sys.stdin:
    command = json.loads(line)
    time.sleep(command.get("seconds", 0))
    print(json.dumps({}), flush=True)
"""


@pytest.fixture
def waiter(tmp_path):
    server = tmp_path / "waiter.py"
    server.write_text(WAITER)

    def start(time_limit):
        return ChildProcess(sys.executable, tmp_path, os.environ, time_limit, server)

    return start


def test_the_time_limit_is_for_all_that_is_asked_together(waiter):
    """No single answer takes a third of it."""

    def ask_often(child):
        for _ in range(6):
            child.ask("wait", seconds=0.6)

    with (
        waiter(2) as child,
        pytest.raises(ChildError, match="took more than 2 s, at 'wait'"),
    ):
        ask_often(child)


def test_nobody_is_waited_for_between_two_questions(waiter):
    with waiter(3) as child:
        child.ask("wait")
        time.sleep(3.1)
        assert child.ask("wait") == {}


@pytest.mark.skipif(os.name != "posix", reason="no process groups")
def test_ctrl_c_at_a_terminal_is_for_the_parent(waiter):
    """A terminal sends it to the whole group of the process in front."""
    with waiter(60) as child:
        assert child.ask("wait") == {}
        assert os.getpgid(child.pid) != os.getpgrp()
        os.killpg(os.getpgid(child.pid), 0)  # it has a group of its own
        assert os.getsid(child.pid) == child.pid
