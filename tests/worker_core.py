"""Where tests run side by side: each worker of pytest-xdist has one core, so that none waits."""

import os


def take_one_core() -> None:
    """Bind this process and what it starts to one core, if it is a worker beside others.

    Engines use every core that they may; two workers that do so would wait for each other. To be
    called before anything that starts threads is imported.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
