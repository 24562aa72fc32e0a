"""Who holds a component's session, and who closes it: threads, sizes, failures."""

import threading
import time

import numpy as np
import pytest
from toy_component import LARGE, Workshop
from toy_session import SIGNATURE

from fastdeploy_diffusion.engines.placement import FallbackWarning
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.runtime.cache import ArtifactCache


@pytest.fixture
def workshop():
    return Workshop()


def run(session):
    feeds = {name: np.ones(spec.shape, spec.dtype) for name, spec in session.inputs.items()}
    return session.run(**feeds)["output"]


def test_what_is_kept_serves_the_next_and_closes_when_told(workshop):
    component = workshop.open_component()
    for _ in range(2):
        with component.lend(SIGNATURE, keep=True) as session:
            assert (run(session) == 2).all()
    assert (len(workshop.sessions), workshop.count_open()) == (1, 1)
    component.close()
    component.close()
    assert [each.closed for each in workshop.sessions] == [1]
    with component.lend(SIGNATURE, keep=True) as session:
        assert (run(session) == 2).all()
    assert len(workshop.sessions) == 2


def test_what_is_not_kept_goes_with_its_last_borrower(workshop):
    component = workshop.open_component()
    with component.lend(SIGNATURE) as first:
        with component.lend(SIGNATURE) as second:
            assert first is second
        assert workshop.count_open() == 1
        run(first)
    assert (len(workshop.sessions), workshop.count_open()) == (1, 0)


def test_a_borrower_that_fails_gives_it_back(workshop):
    component = workshop.open_component()
    with pytest.raises(ZeroDivisionError), component.lend(SIGNATURE):
        raise ZeroDivisionError
    assert workshop.count_open() == 0


def test_another_size_closes_the_last_one_before_it_is_built(workshop):
    component = workshop.open_component()
    for signature in (SIGNATURE, LARGE) * 3:
        with component.lend(signature, keep=True) as session:
            run(session)
    assert [each.closed for each in workshop.sessions] == [1] * 5 + [0]
    assert workshop.open_before == [0] * 6


def test_another_size_leaves_alone_what_is_borrowed(workshop):
    component = workshop.open_component()
    with component.lend(SIGNATURE, keep=True) as small:
        with component.lend(LARGE, keep=True) as large:
            assert run(small).shape == (2, 3)
            assert run(large).shape == (4, 6)
        assert workshop.count_open() == 2
        run(small)
    # The small one had been replaced, and nobody needs it any more.
    assert [each.closed for each in workshop.sessions] == [1, 0]


def test_close_ends_what_is_borrowed_too(workshop):
    component = workshop.open_component()
    with component.lend(SIGNATURE, keep=True) as small, component.lend(LARGE, keep=True) as large:
        component.close()
        for session in (small, large):
            with pytest.raises(EngineError, match="session is closed"):
                run(session)
    assert [each.closed for each in workshop.sessions] == [1, 1]
    with component.lend(LARGE) as session:
        run(session)


def test_threads_that_borrow_at_once_share_one_build(workshop):
    component = workshop.open_component()
    workshop.may_build.clear()
    ready, shapes = threading.Barrier(9, timeout=20), []

    def borrow():
        ready.wait()
        with component.lend(SIGNATURE) as session:
            shapes.append(run(session).shape)
            ready.wait()  # nobody gives it back before all have it

    threads = [threading.Thread(target=borrow) for _ in range(8)]
    for thread in threads:
        thread.start()
    ready.wait()
    time.sleep(0.1)  # all have asked for it now
    workshop.may_build.set()
    ready.wait()
    for thread in threads:
        thread.join()
    assert shapes == [(2, 3)] * 8
    assert [each.closed for each in workshop.sessions] == [1]
    assert workshop.most_at_once == 1


@pytest.fixture
def building(workshop):
    """A component, and a thread that is building its session for the large size."""
    component, failures = workshop.open_component(), []

    def build():
        try:
            with component.lend(LARGE, keep=True) as session:
                run(session)
        except EngineError as error:
            failures.append(error.problem)

    thread = threading.Thread(target=build)

    def start():
        workshop.may_build.clear()
        thread.start()
        while not workshop.is_building:
            time.sleep(0.01)

    return component, thread, start, failures


def test_close_waits_for_a_build_and_closes_it(building, workshop):
    component, thread, start, _ = building
    start()
    closing = threading.Thread(target=component.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    workshop.may_build.set()
    closing.join()
    thread.join()
    component.close()
    assert workshop.count_open() == 0


def test_giving_back_does_not_wait_for_a_build(building, workshop):
    component, thread, start, failures = building

    def borrow():
        with component.lend(SIGNATURE) as session:
            run(session)
            start()

    borrowing = threading.Thread(target=borrow)
    borrowing.start()
    borrowing.join(20)
    assert [each.closed for each in workshop.sessions] == [1]
    workshop.may_build.set()
    thread.join()
    assert failures == []
    assert [each.closed for each in workshop.sessions] == [1, 0]


def test_a_size_that_cannot_be_built_leaves_nothing_behind(workshop):
    component = workshop.open_component()
    workshop.compute["openvino"] = EngineError("no memory")
    with pytest.raises(EngineError, match="no memory"), component.lend(SIGNATURE):
        pass
    del workshop.compute["openvino"]
    with component.lend(SIGNATURE) as session:
        run(session)
    assert workshop.count_open() == 0


def fail(sample, ids=None):
    raise MemoryError("std::bad_alloc")


def test_what_failed_is_closed_before_its_fallback_is_built(workshop):
    component = workshop.open_component()
    workshop.compute["openvino"] = fail
    with component.lend(SIGNATURE, keep=True) as session:
        with pytest.warns(FallbackWarning, match="std::bad_alloc"):
            assert (run(session) == 2).all()
        assert workshop.open_before == [0, 0]
        assert component.report.engine == "paddle"
        assert session.engine == "paddle"
    # The next size is built for what works, at once.
    with component.lend(LARGE, keep=True) as session:
        assert (run(session) == 2).all()
    assert [each.closed for each in workshop.sessions] == [1, 1, 0]


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_without_a_fallback_the_session_stays(workshop, engine):
    # A warning of a fallback, which is an error here, would be told as an EngineError, too.
    component = workshop.open_component(engine, cpu_fallback=False)
    workshop.compute[engine] = fail
    with (
        component.lend(SIGNATURE, keep=True) as session,
        pytest.raises(EngineError, match=r"^\w+ failed to run part: MemoryError: std"),
    ):
        run(session)
    assert (component.report.engine, workshop.count_open()) == (engine, 1)
    # What failed once may work again, and is the same session.
    workshop.sessions[0]._compute = lambda sample, ids=None: {"output": sample}
    with component.lend(SIGNATURE, keep=True) as session:
        assert (run(session) == 1).all()
    assert len(workshop.sessions) == 1


def test_what_was_built_for_another_machine_has_no_fallback_here(workshop):
    component = workshop.open_component("tensorrt", device="gpu", target="sm120")
    workshop.compute["tensorrt"] = fail
    with (
        component.lend(SIGNATURE, keep=True) as session,
        pytest.raises(EngineError, match=r"^\w+ failed to run part: MemoryError: std"),
    ):
        run(session)
    assert (component.report.engine, component.report.target) == ("tensorrt", "sm120")


def tune(component, show=lambda what: None):
    return component.tune(LARGE, runs=1, sizes={}, show=show)


def test_nothing_is_built_while_a_component_is_tuned(workshop, tmp_path):
    component = workshop.open_component("auto", cache=ArtifactCache(tmp_path, 2**20))
    workshop.may_build.clear()
    tuning = threading.Thread(target=tune, args=(component,))
    engines = []

    def draw():
        with component.lend(LARGE) as session:
            run(session)
            engines.append((session.engine, component.report.measured_seconds is not None))

    drawing = threading.Thread(target=draw)
    tuning.start()
    while tuning.is_alive() and not workshop.is_building:
        time.sleep(0.01)
    drawing.start()
    drawing.join(0.1)
    workshop.may_build.set()
    for each in (tuning, drawing):
        each.join()
    assert workshop.most_at_once == 1
    # It was built when tuning had ended, as the plan says.
    assert engines == [(workshop.sessions[-1].engine, True)]
    assert workshop.count_open() == 0


def test_what_was_built_before_a_plan_goes_with_it(workshop, tmp_path):
    component = workshop.open_component("auto", cache=ArtifactCache(tmp_path, 2**20))

    def draw(what):
        with component.lend(LARGE, keep=True) as session:
            run(session)

    draw("before")
    tune(component, show=draw)
    assert workshop.count_open() == 0
    draw("after")
    assert component.report.measured_seconds is not None


def test_what_takes_the_place_of_an_engine_has_neither_its_passes_nor_its_time(workshop, tmp_path):
    cache, passes = ArtifactCache(tmp_path, 2**20), ("merge-kv",)
    component = workshop.open_component("auto", cache=cache, passes=passes)
    workshop.compute["paddle"] = EngineError("not now")
    tune(component)
    assert component.placer.name_passes() == ("merge-kv",)
    assert component.report.measured_seconds is not None
    workshop.compute = {component.report.engine: fail}
    with (
        component.lend(LARGE) as session,
        pytest.warns(FallbackWarning, match="std::bad_alloc"),
    ):
        run(session)
    assert component.placer.name_passes() == ()
    assert (component.report.engine, component.report.measured_seconds) == ("paddle", None)


def test_sessions_of_two_sizes_that_fail_get_the_same_fallback(workshop):
    component = workshop.open_component()
    workshop.compute["openvino"] = fail
    with component.lend(SIGNATURE, keep=True) as small, component.lend(LARGE, keep=True) as large:
        with pytest.warns(FallbackWarning, match="std::bad_alloc"):
            assert (run(small) == 2).all()
        assert (run(large) == 2).all()  # without another warning, which would be an error
    assert [each.closed for each in workshop.sessions] == [1, 1, 1, 0]


def test_fallbacks_of_two_sizes_are_built_one_after_the_other(workshop):
    component = workshop.open_component()
    workshop.compute["openvino"] = fail

    def fail_at_once(*sessions):
        workshop.may_build.clear()
        threads = [threading.Thread(target=run, args=(session,)) for session in sessions]
        for thread in threads:
            thread.start()
        time.sleep(0.1)  # both have failed now
        workshop.may_build.set()
        for thread in threads:
            thread.join()

    with (
        component.lend(SIGNATURE, keep=True) as small,
        component.lend(LARGE, keep=True) as large,
        pytest.warns(FallbackWarning, match="std::bad_alloc"),
    ):
        fail_at_once(small, large)
    assert workshop.most_at_once == 1
    assert [each.engine for each in workshop.sessions] == ["openvino"] * 2 + ["paddle"] * 2


def test_two_threads_that_fail_at_once_get_one_fallback(workshop):
    component = workshop.open_component()
    workshop.compute["openvino"] = fail
    results = []

    def draw_at_once(session):
        threads = [threading.Thread(target=lambda: results.append(run(session))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    with (
        component.lend(SIGNATURE, keep=True) as session,
        pytest.warns(FallbackWarning, match="std::bad_alloc"),
    ):
        draw_at_once(session)
    assert [(each == 2).all() for each in results] == [True] * 4
    assert len(workshop.sessions) == 2
