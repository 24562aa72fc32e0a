"""Which sessions of a component stay, in which order they go, and what they give up memory for."""

import threading

import numpy as np
import pytest
from toy_component import LARGE, Workshop, make_signature

from fastdeploy_diffusion.engines.placement import FallbackWarning
from fastdeploy_diffusion.errors import DiskFullError, EngineError, NonFiniteError, ResourceError
from fastdeploy_diffusion.runtime.session_pool import (
    KEPT_SESSIONS,
    SessionPool,
    share_memory,
)

SIZES = [make_signature(rows) for rows in range(1, KEPT_SESSIONS + 3)]


@pytest.fixture
def workshop():
    return Workshop(share=0.01)


def run(session):
    feeds = {name: np.ones(spec.shape, spec.dtype) for name, spec in session.inputs.items()}
    return session.run(**feeds)["output"]


def visit(component, *signatures):
    """Lend each in turn, and run it."""
    for signature in signatures:
        with component.lend(signature, keep=True) as session:
            assert run(session).shape == signature.outputs[0].shape


def name_rows(sessions):
    return [session.outputs["output"].shape[0] for session in sessions]


def test_small_networks_keep_sizes_that_alternate(workshop):
    component = workshop.open_component()
    visit(component, *SIZES[:KEPT_SESSIONS] * 3)
    assert len(workshop.sessions) == workshop.count_open() == KEPT_SESSIONS >= 5
    component.close()
    assert [each.closed for each in workshop.sessions] == [1] * KEPT_SESSIONS
    assert component.pool.sessions == []


def test_the_one_that_was_lent_the_longest_ago_goes_first(workshop):
    component = workshop.open_component()
    visit(component, *SIZES[:KEPT_SESSIONS], SIZES[0], SIZES[KEPT_SESSIONS])
    # The second one was older than the first, and went before the last was built.
    assert name_rows(component.pool.sessions) == [
        *range(3, KEPT_SESSIONS + 1),
        1,
        KEPT_SESSIONS + 1,
    ]
    assert workshop.open_before[-1] == KEPT_SESSIONS - 1
    assert [each.closed for each in workshop.sessions[:3]] == [0, 1, 0]


@pytest.mark.parametrize(("share", "kept"), [(1.01, 1), (0.51, 1), (0.5, 2), (0.33, 3)])
def test_all_take_no_more_memory_than_they_may(share, kept):
    workshop = Workshop(share)
    component = workshop.open_component()
    visit(component, *SIZES[:5])
    assert workshop.open_before == [min(count, kept - 1) for count in range(5)]
    assert name_rows(component.pool.sessions) == list(range(1, 6))[-kept:]


def test_what_an_engine_holds_of_activations_counts(workshop):
    """Sessions of large pictures take more than the weights."""
    workshop.activations = {1: 0.6, 2: 0.3, 3: 0.3}
    component = workshop.open_component()
    visit(component, SIZES[0], SIZES[1])
    assert workshop.count_open() == 2
    visit(component, SIZES[2])
    assert name_rows(component.pool.sessions) == [2, 3]


def test_on_a_gpu_whose_memory_nobody_estimates_one_is_kept(workshop):
    component = workshop.open_component("tensorrt", device="gpu", target="sm120")
    visit(component, *SIZES[:3])
    assert workshop.open_before == [0] * 3
    assert name_rows(component.pool.sessions) == [3]


def test_what_is_in_use_counts_and_does_not_go(workshop):
    component = Workshop.open_component(Workshop(share=0.4))
    with component.lend(SIZES[0], keep=True) as first:
        visit(component, *SIZES[1:4])
        assert name_rows(component.pool.sessions) == [1, 4]
        run(first)
    assert name_rows(component.pool.sessions) == [1, 4]


def test_what_is_not_kept_goes_though_there_is_room(workshop):
    component = workshop.open_component()
    visit(component, SIZES[0])
    for signature in SIZES[:2]:
        with component.lend(signature) as session:
            run(session)
    assert workshop.count_open() == 0


def fail(sample):
    raise ZeroDivisionError("broken")


def test_idle_ones_go_with_the_engine_that_they_were_built_for(workshop):
    component = workshop.open_component()
    visit(component, *SIZES[:3])
    workshop.compute["openvino"] = fail
    with (
        component.lend(SIZES[4], keep=True) as session,
        component.lend(SIZES[0], keep=True) as other,
    ):
        with pytest.warns(FallbackWarning, match="broken"):
            run(session)
        assert len(workshop.sessions[3].runs) == 1  # it was not for want of memory
        # Before anything was built in their place; what is in use goes on.
        assert workshop.open_before[-1] == 1
        assert (run(other) == 2).all()
    # The one that did not fail is of the former engine, and is not lent again.
    assert name_rows(component.pool.sessions) == [5]
    visit(component, SIZES[0])
    assert [each.engine for each in component.pool.sessions] == ["paddle"] * 2
    assert component.report.engine == "paddle"


def test_the_report_is_of_the_session_in_use(workshop):
    component = workshop.open_component()
    seconds = {}
    for signature in (*SIZES[:3], SIZES[1], SIZES[0]):
        with component.lend(signature, keep=True):
            found = component.report.build_seconds
            assert seconds.setdefault(signature, found) == found
    assert len(set(seconds.values())) == 3


@pytest.mark.parametrize("error", [MemoryError("std::bad_alloc"), ResourceError("too little")])
@pytest.mark.parametrize("own", [0, 2])
def test_idle_ones_make_room_for_a_build_that_runs_out_of_memory(workshop, error, own):
    component, neighbour = workshop.open_component(), workshop.open_component(name="neighbour")
    share_memory([component.pool, neighbour.pool])
    visit(component, *SIZES[:own])
    visit(neighbour, *SIZES[:2])
    with neighbour.lend(SIZES[1], keep=True) as in_use:

        def build_alone(build, made=workshop._build):
            if workshop.count_open() > 1:
                raise error
            return made(build)

        workshop._build = build_alone
        visit(component, SIZES[2])
        run(in_use)
    assert [name_rows(each.pool.sessions) for each in (component, neighbour)] == [[3], [2]]


def test_a_build_that_lacks_memory_with_nothing_idle_is_not_tried_again(workshop):
    component = workshop.open_component()
    builds = []

    def run_out(build):
        builds.append(build)
        raise MemoryError

    workshop._build = run_out
    with pytest.raises(MemoryError), component.lend(SIZES[0]):
        pass
    assert len(builds) == 1


@pytest.mark.parametrize(
    "error", [EngineError("not of memory"), DiskFullError("a build", "/there", "no space")]
)
def test_other_failures_cost_nothing_that_is_kept(workshop, error):
    component = workshop.open_component()
    visit(component, *SIZES[:2])
    workshop.compute["openvino"] = error
    with pytest.raises(type(error)), component.lend(SIZES[2], keep=True):
        pass
    assert name_rows(component.pool.sessions) == [1, 2]
    visit(component, *SIZES[:2])
    assert len(workshop.sessions) == 2


def test_a_session_counts_in_the_precision_that_it_was_built_in():
    workshop = Workshop(share=0.51)
    component = workshop.open_component("onnxruntime", precision="bf16")

    def overflow(build, made=workshop._build):
        if build.placement.spec.precision == "bf16":
            raise NonFiniteError("NaN")
        return made(build)

    visit(component, *SIZES[:3])
    assert name_rows(component.pool.sessions) == [1, 2, 3]
    workshop._build = overflow
    with pytest.warns(FallbackWarning, match="NaN"):
        visit(component, SIZES[3])
    assert name_rows(component.pool.sessions) == [4]
    visit(component, SIZES[4])
    assert name_rows(component.pool.sessions) == [5]
    assert component.report.precision == "fp32"


def test_builds_that_failed_take_no_place(workshop):
    component = workshop.open_component()
    workshop.compute["openvino"] = EngineError("broken")
    for signature in SIZES:
        with pytest.raises(EngineError, match="broken"), component.lend(signature, keep=True):
            pass
    del workshop.compute["openvino"]
    visit(component, *SIZES[:KEPT_SESSIONS])
    assert workshop.count_open() == KEPT_SESSIONS


def test_idle_ones_make_room_for_a_run_before_another_engine_takes_its_place(workshop):
    component, neighbour = workshop.open_component(), workshop.open_component(name="neighbour")
    share_memory([component.pool, neighbour.pool])

    def compute_alone(sample):
        if workshop.count_open() > 1:
            raise MemoryError("std::bad_alloc")
        return {"output": 2 * sample}

    visit(component, *SIZES[:2])
    visit(neighbour, *SIZES[:2])
    workshop.compute["openvino"] = compute_alone
    visit(component, SIZES[2])
    assert (component.report.engine, component.report.fallback) == ("openvino", None)
    assert (len(workshop.sessions), workshop.count_open()) == (5, 1)


def test_a_fallback_that_cannot_be_built_leaves_nothing_that_is_closed(workshop):
    component = workshop.open_component()
    workshop.compute = {"openvino": fail, "paddle": EngineError("no fallback")}
    with (
        pytest.warns(FallbackWarning, match="broken"),
        pytest.raises(EngineError, match="no fallback"),
    ):
        visit(component, SIZES[0])
    assert (workshop.count_open(), component.pool.sessions) == (0, [])
    assert (component.report.engine, component.report.relative_error) == ("paddle", None)
    assert "broken" in component.report.fallback
    del workshop.compute["paddle"]
    visit(component, SIZES[0])
    assert component.report.engine == "paddle"


def test_a_fallback_that_cannot_be_built_is_tried_again_by_the_same_session(workshop):
    component = workshop.open_component()
    workshop.compute = {"openvino": fail, "paddle": EngineError("no fallback")}
    with component.lend(SIZES[0], keep=True) as session:
        with (
            pytest.warns(FallbackWarning, match="broken"),
            pytest.raises(EngineError, match="no fallback"),
        ):
            run(session)
        del workshop.compute["paddle"]
        assert (run(session) == 2).all()
    assert [each.engine for each in component.pool.sessions] == ["paddle"]


def test_threads_that_change_sizes_never_hold_more_than_is_kept(workshop):
    component, threads, failures = workshop.open_component(), 6, []
    most = KEPT_SESSIONS + threads  # of each thread, one may be in use

    def draw(seed):
        random = np.random.default_rng(seed)
        try:
            for _ in range(50):
                signature = SIZES[random.integers(len(SIZES))]
                with component.lend(signature, keep=random.random() < 0.8) as session:
                    assert run(session).shape == signature.outputs[0].shape
                    assert workshop.count_open() <= most
        except BaseException as error:
            failures.append(error)

    running = [threading.Thread(target=draw, args=(seed,)) for seed in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert failures == []
    assert workshop.count_open() == len(component.pool.sessions) <= KEPT_SESSIONS
    component.close()
    assert {each.closed for each in workshop.sessions} == {1}


def test_a_pool_alone_makes_room_in_itself():
    closed = []

    class Session:
        def close(self):
            closed.append(self)

    pool = SessionPool(lambda signature: Session(), lambda signature: 0, lambda session: True)
    with pool.lend(LARGE, keep=True) as session:
        assert not pool.make_room()
    assert pool.make_room()
    assert not pool.make_room()
    assert closed == [session]


def test_what_a_request_needs_may_stay_where_the_rest_makes_room(workshop):
    component = workshop.open_component()
    visit(component, *SIZES[:3])
    component.pool.drop_idle(but=SIZES[1])
    assert name_rows(component.pool.sessions) == [2]
