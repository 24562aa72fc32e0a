"""The process that converts graphs with Paddle2ONNX, kept for the graphs that follow."""

import atexit
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO

from fastdeploy_diffusion.errors import EngineError

_CHILD = "fastdeploy_diffusion.export.onnx_child"
# A small network's next component follows within this time; a large one needs the memory back.
_IDLE_SECONDS = 10.0


class OnnxConverter:
    """Paddle2ONNX in a process of its own, which it may kill.

    Importing Paddle there takes many times as long as to convert a graph: so the process serves
    one graph after the other, and ends when none has come for a while. After any failure it is not
    used again. Threads take turns.
    """

    def __init__(self, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._lock = threading.RLock()
        self._process: subprocess.Popen[str] | None = None
        self._said: IO[bytes] | None = None
        self._owner = 0
        self._idle: threading.Timer | None = None

    def start(self) -> None:
        """Start the process if there is none, so that it imports while the caller traces."""
        with self._lock:
            self._find_process()
            self._wait_for_more()

    def convert(self, component: str, job: Path) -> None:
        """Convert one graph.

        Args:
            job: The JSON file of the job; see `onnx_child`.

        Raises:
            EngineError: The graph cannot be converted, or Paddle2ONNX ended its process.
        """
        with self._lock:
            process = self._find_process()
            try:
                answer = self._ask(process, f"{job}\n")
            except BaseException:
                self._end()  # its late answers are dropped
                raise
            if not answer:
                raise self._explain_end(component, process)
            self._wait_for_more()

    def close(self) -> None:
        """End the process, if there is one; the next graph starts another."""
        with self._lock:
            self._end()

    def _find_process(self) -> subprocess.Popen[str]:
        if self._idle is not None:
            self._idle.cancel()
        if self._process is not None and (
            self._owner != os.getpid() or self._process.poll() is not None
        ):
            self._end()
        if self._process is None:
            self._said = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
            self._process = subprocess.Popen(
                [sys.executable, "-m", _CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                text=True,
                encoding="utf-8",
                # The child imports this package from the same place.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            self._owner = os.getpid()
        return self._process

    def _ask(self, process: subprocess.Popen[str], question: str) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, which the answer shows
            process.stdin.write(question)
            process.stdin.flush()
        return process.stdout.readline()

    def _wait_for_more(self) -> None:
        self._idle = threading.Timer(self._idle_seconds, self.close)
        self._idle.daemon = True
        self._idle.start()

    def _explain_end(self, component: str, process: subprocess.Popen[str]) -> EngineError:
        code = process.wait()
        assert self._said is not None
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        said = [line.strip() for line in lines if line.strip()]
        self._end()
        return EngineError(
            f"{component}: Paddle2ONNX ended with code {code}: "
            + (said[-1] if said else "it said nothing"),
            fix="run it on the paddle engine, and report this",
        )

    def _end(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        process, self._process = self._process, None
        if process is None or self._said is None:
            return
        self._said.close()
        if self._owner == os.getpid():  # what a fork inherits is still its parent's
            process.kill()
            process.communicate()


CONVERTER = OnnxConverter()
"""The one that exports share."""

atexit.register(CONVERTER.close)
