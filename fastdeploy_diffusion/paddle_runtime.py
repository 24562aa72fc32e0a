"""The one quiet way to Paddle: import this module before, or in place of, ``import paddle``.

Importing ``paddle`` warns that no ccache was found, which matters to nobody who does not compile
custom operators, and its C++ side logs every graph pass to the terminal. Both are settled here,
once, before the library loads; a log level that the user has set in the environment stays. It also
catches signals to write a C++ traceback, in which a process that was told to end can hang for ever:
signals are given back.
"""

import os
import threading
import warnings

# Read once, when Paddle's shared library loads: 2 keeps errors and hides notes and warnings.
os.environ.setdefault("GLOG_minloglevel", "2")

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="No ccache found", category=UserWarning)
    import paddle

paddle.disable_signal_handler()

__all__ = ["MODE_LOCK", "paddle"]

# Eager or static is a mode of the whole process, not of a thread: a trace in one thread breaks an
# eager run in another, so they take turns.
MODE_LOCK = threading.RLock()
