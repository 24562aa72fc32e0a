"""The measured process: it loads one adapter and answers commands, one line of JSON each.

``python serve.py ADAPTER.py`` runs in any Python that has numpy, with this package or without it.
An adapter is a file with a class ``Painter``::

    class Painter:
        keeps_builds = False                    # whether `load` is quicker the second time
        def __init__(self, task): ...           # what to draw, see `Task`; loads the model
        def describe(self): ...                 # versions and settings, as JSON
        def draw(self, prompts, seeds, steps):  # → pictures (Pillow or arrays), seconds by stage

What it imports at its top is counted as import, what ``__init__`` does as loading.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TextIO

import numpy as np

_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


class Server:
    """Answers ``open``, ``draw``, ``describe``; ours ``ablate``, ``survey``, ``calibrate``."""

    def __init__(self, adapter: str) -> None:
        self._adapter = adapter
        self._painter: Any = None

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Run one command and give its answer."""
        known: dict[str, Callable[..., dict[str, Any]]] = {
            "open": self._open,
            "describe": self._describe,
            "draw": self._draw,
            "ablate": self._ablate,
            "survey": self._survey,
            "calibrate": self._calibrate,
        }
        return known[command.pop("do")](**command)

    def _open(self, task: dict[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        spec = importlib.util.spec_from_file_location("adapter", self._adapter)
        if spec is None or spec.loader is None:
            raise ImportError(f"{self._adapter} is no Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        imported = time.perf_counter()
        self._painter = module.Painter(task)
        return {
            "import_seconds": imported - started,
            "load_seconds": time.perf_counter() - imported,
            "keeps_builds": self._painter.keeps_builds,
        }

    def _describe(self) -> dict[str, Any]:
        return {"described": self._painter.describe()}

    def _ablate(self) -> dict[str, Any]:
        return {"trials": self._painter.ablate()}

    def _survey(self, batch: int) -> dict[str, Any]:
        return {"surveys": self._painter.survey(batch)}

    def _calibrate(self) -> dict[str, Any]:
        return {"folder": self._painter.calibrate()}

    def _draw(
        self, prompts: Sequence[str], seeds: Sequence[int], steps: int, save: str | None
    ) -> dict[str, Any]:
        started = time.perf_counter()
        pictures, stages = self._painter.draw(prompts, seeds, steps)
        seconds = time.perf_counter() - started
        if save:
            np.save(save, np.stack([np.asarray(each, np.uint8) for each in pictures]))
        return {"seconds": seconds, "stages": stages}


def read_memory() -> dict[str, int]:
    """Resident memory of this process in bytes, now and at its peak; nothing where not known."""
    fields: dict[str, list[str]] = {}
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="utf-8") as status:
        for line in status:
            name, _, value = line.partition(":")
            fields[name] = value.split()
    if "VmHWM" not in fields:
        return {}
    return {
        "resident_bytes": int(fields["VmRSS"][0]) * 1024,
        "peak_bytes": int(fields["VmHWM"][0]) * 1024,
        "os_threads": int(fields["Threads"][0]),
    }


def end_with_parent() -> None:
    """Have this process killed when the one that started it has ended, however busy it is.

    On Linux; elsewhere it ends when it has answered what it was asked.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(adapter: str, lines: Iterable[str], answers: TextIO) -> None:
    """Answer every line until there are no more."""
    server = Server(adapter)
    for line in lines:
        try:
            answer = server.answer(json.loads(line))
        except Exception as error:  # of a peer: it must not end this process
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps({**answer, **read_memory()}) + "\n")
        answers.flush()


if __name__ == "__main__":
    end_with_parent()
    # Runtimes print what they like on stdout; the answers get a channel of their own.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.path.pop(0)  # this folder's files are no top-level modules
    serve(sys.argv[1], sys.stdin, channel)
