"""The one quiet way to Paddle: import this module before, or in place of, ``import paddle``.

Importing ``paddle`` warns that no ccache was found, which matters only for custom operators, and
its C++ side logs every graph pass to the terminal. Both are silenced here, once, before the library
loads; a log level that the user has set in the environment stays. It also catches signals to write
a C++ traceback, in which a terminated process can hang for ever: the handlers are restored. And it
reports Ctrl-C as a broken installation: Ctrl-C is held until the import is done.
"""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Read once, when Paddle's shared library loads: 2 keeps errors and hides notes and warnings.
os.environ.setdefault("GLOG_minloglevel", "2")


@contextmanager
def _hold_interrupts() -> Iterator[None]:
    """Hold Ctrl-C until the block ends; without effect in threads, where it never comes."""
    handler, held = signal.getsignal(signal.SIGINT), []
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda *given: held.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if held:
        handler(*held[0])


with _hold_interrupts(), warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="No ccache found", category=UserWarning)
    import paddle

paddle.disable_signal_handler()

__all__ = ["eager_mode", "find_linear_weights", "paddle", "static_mode"]

_mode_lock = threading.RLock()
_modes = paddle.base.framework.global_var
_eager_tracer = _modes._dygraph_tracer_


@contextmanager
def eager_mode() -> Iterator[None]:
    """Run or make layers while no other thread of this library does, or traces one.

    Eager or static is a mode of the whole process: a trace in one thread breaks a run in another.
    It is also a mode of each thread, copied from the process when the thread first uses Paddle; one
    that does so while another traces would stay in static mode for ever.
    """
    with _mode_lock:
        if _modes._dygraph_tracer_ is None and _eager_tracer is not None:
            _modes._dygraph_tracer_ = _eager_tracer
        yield


@contextmanager
def static_mode() -> Iterator[None]:
    """Trace a layer while no other thread of this library runs or traces one.

    ``paddle.enable_static`` has no effect in threads other than the one that imported Paddle.
    """
    with eager_mode(), paddle.base.framework._dygraph_guard(None), _without_call_stacks():
        yield


@contextmanager
def _without_call_stacks() -> Iterator[None]:
    """Keep Paddle from noting Python's stack with each operator, which takes longer than the rest.

    Its C++ code calls ``traceback.extract_stack``, which looks every frame's file up.
    """
    before = getattr(sys, "tracebacklimit", None)
    sys.tracebacklimit = 0
    try:
        yield
    finally:
        if before is None:
            del sys.tracebacklimit
        else:
            sys.tracebacklimit = before


def find_linear_weights(layer: Any) -> set[str]:
    """Name the weights that Paddle keeps as [in, out], where PyTorch's layout is [out, in]."""
    return {
        f"{name}.weight".lstrip(".")
        for name, part in layer.named_sublayers(include_self=True)
        if isinstance(part, paddle.nn.Linear)
    }
