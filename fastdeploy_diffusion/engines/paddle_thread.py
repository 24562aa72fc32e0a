"""The threads that Paddle Inference runs on, which never end.

Paddle keeps what oneDNN has prepared of a network for the whole process, and each thread has an
engine of oneDNN that lives as long as the thread. What one thread has prepared, others use after it
has ended, with an engine that is gone: they fail, or worse. So callers' threads, which come and go,
run nothing: a session has a thread of its own, which goes over to a later session when it closes.
"""

import atexit
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_Tasks = SimpleQueue[tuple[Future[Any], Callable[[], Any]]]


class PaddleThread:
    """Runs functions one after the other on a thread that lasts as long as the process."""

    def __init__(self) -> None:
        self._process = os.getpid()
        # The one queue whose put is safe to call again from the garbage collector, in the middle of
        # a put.
        self._tasks: _Tasks = SimpleQueue()
        threading.Thread(target=_work, args=(self._tasks,), name="paddle", daemon=True).start()
        # A process that ends in the middle of a run, after Ctrl-C for one, would take away what the
        # run works on.
        atexit.register(self.call, _do_nothing)

    @property
    def is_here(self) -> bool:
        """Whether the thread runs in this process: a fork has none of its parent's threads."""
        return self._process == os.getpid()

    def call(self, function: Callable[[], T]) -> T:
        """Run a function on the thread; returns its result, or raises its error."""
        if not self.is_here:
            return function()
        future: Future[T] = Future()
        self._tasks.put((future, function))
        return future.result()

    def begin(self, function: Callable[[], object]) -> None:
        """Queue a function; its result and errors are dropped."""
        if self.is_here:
            self._tasks.put((Future(), function))


def take_thread() -> PaddleThread:
    """Take an idle thread, or start one."""
    while _idle:
        try:
            thread = _idle.pop()
        except IndexError:  # another thread was faster
            break
        if thread.is_here:
            return thread
    return PaddleThread()


def give_back(thread: PaddleThread) -> None:
    """Return a thread, for a later session."""
    _idle.append(thread)


_idle: deque[PaddleThread] = deque()


def _do_nothing() -> None:
    """Do nothing, as the last task: it is done when all others are."""


def _work(tasks: _Tasks) -> None:
    while True:
        future, function = tasks.get()
        try:
            future.set_result(function())
        except BaseException as error:  # it is raised in the thread that waits
            future.set_exception(error)
        del future, function  # or they would stay until the next task comes
