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
        # Of all queues, this is the one that the garbage collector may call in the middle of a put.
        self._tasks: _Tasks = SimpleQueue()
        threading.Thread(target=_work, args=(self._tasks,), name="paddle", daemon=True).start()
        # A process that ends in the middle of a run, after Ctrl-C for one, would take away what the
        # run works on.
        atexit.register(self.call, _do_nothing)

    @property
    def is_here(self) -> bool:
        """Whether there is such a thread: a forked process has none of its parent's."""
        return self._process == os.getpid()

    def call(self, function: Callable[[], T]) -> T:
        """Run a function, and give what it returns, or raise what it raises."""
        if not self.is_here:
            return function()
        future: Future[T] = Future()
        self._tasks.put((future, function))
        return future.result()

    def begin(self, function: Callable[[], object]) -> None:
        """Run a function later; nobody is told how it ends."""
        if self.is_here:
            self._tasks.put((Future(), function))


def take_thread() -> PaddleThread:
    """Give a thread that no session has, or a new one."""
    while _idle:
        try:
            thread = _idle.pop()
        except IndexError:  # another thread was faster
            break
        if thread.is_here:
            return thread
    return PaddleThread()


def give_back(thread: PaddleThread) -> None:
    """Leave a thread to a later session."""
    _idle.append(thread)


_idle: deque[PaddleThread] = deque()


def _do_nothing() -> None:
    """Be the last task, which is done when all others are."""


def _work(tasks: _Tasks) -> None:
    while True:
        future, function = tasks.get()
        try:
            future.set_result(function())
        except BaseException as error:  # it is raised in the thread that waits
            future.set_exception(error)
        del future, function  # or they would stay until the next task comes
