"""The parent's side of a measured process: ask, wait no longer than allowed, say how it ended."""

import json
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from typing_extensions import Self

SERVER = Path(__file__).parent / "child" / "serve.py"
_SECONDS_TO_END = 5.0
_SHOWN_LINES = 6


class ChildError(Exception):
    """A measured process refused, crashed or hung; the message says which."""


class ChildProcess:
    """A process that draws; close it to end it.

    Args:
        time_limit: Seconds that it may take in all, while it is waited for.
        server: The script that serves the adapter.
    """

    def __init__(
        self,
        python: str,
        adapter: Path,
        environment: Mapping[str, str],
        time_limit: float,
        server: Path = SERVER,
    ) -> None:
        self._seconds_left = self._time_limit = time_limit
        self._is_busy = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`)
        try:
            self._process = subprocess.Popen(
                [python, str(server), str(adapter)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=dict(environment),
                text=True,
                encoding="utf-8",
                # Ctrl-C is for the parent, which ends its children and keeps what they have told.
                start_new_session=True,
            )
        except OSError as error:
            self._log.close()
            raise ChildError(f"{python} does not start: {error.strerror}") from error
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def open(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Import and load; raises as `ask`."""
        return self.ask("open", task=task)

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], steps: int, save: Path | None = None
    ) -> dict[str, Any]:
        """Draw, and write the pictures (B, H, W, 3) uint8 to a ``.npy`` file; raises as `ask`."""
        file = str(save) if save else None
        return self.ask("draw", prompts=list(prompts), seeds=list(seeds), steps=steps, save=file)

    def ask(self, do: str, **details: Any) -> dict[str, Any]:
        """Send a command and wait for the answer.

        Raises:
            ChildError: The child failed to do it, ended, or took too long; then it is ended.
        """
        started = time.monotonic()
        self._is_busy = True
        pipe = self._process.stdin
        try:
            assert pipe is not None
            pipe.write(json.dumps({"do": do, **details}) + "\n")
            pipe.flush()
            line = self._answers.get(timeout=max(self._seconds_left, 0))
            self._is_busy = False
        except queue.Empty:
            self.close()
            raise ChildError(f"took more than {self._time_limit:g} s, at {do!r}") from None
        except (BrokenPipeError, ValueError):
            line = ""
        finally:
            self._seconds_left -= time.monotonic() - started
        if not line:
            raise ChildError(self._explain_end(do))
        answer = cast(dict[str, Any], json.loads(line))
        if "error" in answer:
            raise ChildError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process; more than once is fine."""
        if self._log.closed:
            return
        pipe = self._process.stdin
        try:
            if pipe is not None:
                pipe.close()  # it ends when there is nothing more to do
            if not self._is_busy:
                self._process.wait(_SECONDS_TO_END)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            pass
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            self._log.close()

    def _read(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None
        with pipe:
            for line in pipe:
                self._answers.put(line)
        self._answers.put("")  # it has ended

    def _explain_end(self, do: str) -> str:
        code = self._process.wait()
        how = f"exit code {code}" if code >= 0 else _name_signal(-code)
        self._log.seek(0)
        said = self._log.read().decode("utf-8", errors="replace").splitlines()
        last = "; ".join(line.strip() for line in said[-_SHOWN_LINES:] if line.strip())
        return f"the process ended with {how}, at {do!r}" + (f": {last}" if last else "")


def _name_signal(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"{name} (out of memory?)" if name == "SIGKILL" else name
