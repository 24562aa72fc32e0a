"""Callers' threads come and go: every engine runs for each of them, with the same numbers."""

import gc
import threading
import weakref

import numpy as np
import pytest
from engine_programs import CASES, draw_feeds
from runnable import CPU_ENGINES, spec_for

from fastdeploy_diffusion.engines.registry import create_engine

pytestmark = pytest.mark.serial
SIZES = (4, 7, 5)


@pytest.fixture(scope="module")
def open_session(tmp_path_factory):
    """Load a case on an engine; every case is built once."""
    built = {}

    def open_session(engine_name, case_name):
        engine, spec = create_engine(engine_name), spec_for(engine_name, threads=2)
        if (engine_name, case_name) not in built:
            folder = tmp_path_factory.mktemp("artifact")
            program = CASES[case_name].program(case_name.replace(" ", "_"))
            engine.build(program, spec, folder)
            built[engine_name, case_name] = program, folder
        program, folder = built[engine_name, case_name]
        return engine.load(program, spec, folder)

    return open_session


def draw(name, size):
    return draw_feeds(CASES[name], size, free=size)


def list_failures(sessions, sizes, at_once):
    """Run all sessions on threads of their own, one a size, so many at once; against one thread."""
    wanted = {
        (name, size): session.run(**draw(name, size))
        for name, session in sessions.items()
        for size in dict.fromkeys(sizes)
    }
    failures = []

    def work(size):
        for name, session in sessions.items():
            try:
                given = session.run(**draw(name, size))
            except Exception as error:
                failures.append(error)
                continue
            for output, array in wanted[name, size].items():
                if not np.array_equal(given[output], array):
                    failures.append((name, size, output))

    for start in range(0, len(sizes), at_once):
        run_threads(
            *(threading.Thread(target=work, args=(each,)) for each in sizes[start:][:at_once])
        )
    return failures


def run_threads(*threads):
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("at_once", [1, 8])
@pytest.mark.parametrize("engine_name", CPU_ENGINES)
def test_threads_that_live_for_one_request(engine_name, at_once, open_session):
    # As in a request, each thread runs more than one network.
    with (
        open_session(engine_name, "free dimensions") as first,
        open_session(engine_name, "decoder") as second,
    ):
        sizes = [size for size in SIZES for _ in range(64)] + [*SIZES, *SIZES, 4, 7]
        assert len(sizes) == 200
        assert list_failures({"free dimensions": first, "decoder": second}, sizes, at_once) == []


def test_sessions_open_and_close_on_threads_that_end(open_session):
    wanted = []
    with open_session("paddle", "decoder") as session:
        wanted.append(session.run(**draw("decoder", 0))["image"])
    failures = []

    def work():
        with open_session("paddle", "decoder") as own:
            if not np.array_equal(own.run(**draw("decoder", 0))["image"], wanted[0]):
                failures.append("another picture")

    threads = threading.active_count()
    for _ in range(20):
        run_threads(threading.Thread(target=work))
    assert failures == []
    assert threading.active_count() == threads  # each took the one that the last had left


def test_sessions_without_an_owner_are_freed(open_session):
    open_session("paddle", "decoder").close()
    threads = threading.active_count()
    session = open_session("paddle", "decoder")
    feeds = draw("decoder", 0)
    session.run(**feeds)
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None
    with open_session("paddle", "decoder") as again:
        again.run(**feeds)
    assert threading.active_count() == threads
