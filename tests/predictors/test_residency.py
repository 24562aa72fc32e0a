"""How long a request holds the sessions of its components."""

import threading
import time

import numpy as np
import pytest
from toy_component import LARGE, Workshop
from toy_session import SIGNATURE

from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.predictors.component import Part
from fastdeploy_diffusion.predictors.residency import RESIDENCIES, Resident, Staged


@pytest.fixture
def workshop():
    return Workshop()


def list_parts(component_pair, signature=SIGNATURE):
    return [Part(component, signature, {}) for component in component_pair]


@pytest.fixture
def pair(workshop):
    return [workshop.open_component(name=name) for name in ("first", "second")]


def run(session):
    return session.run(
        **{name: np.ones(spec.shape, spec.dtype) for name, spec in session.inputs.items()}
    )


def test_every_value_of_memory_has_one():
    assert dict(RESIDENCIES) == {"resident": Resident, "staged": Staged, "streamed": Staged}


def test_resident_components_are_there_from_the_beginning_and_stay(pair, workshop):
    for _ in range(2):
        with Resident() as residency:
            residency.begin(list_parts(pair))
            assert workshop.count_open() == 2
            for part in list_parts(pair):
                with residency.lend(part) as session:
                    run(session)
        assert (len(workshop.sessions), workshop.count_open()) == (2, 2)


def test_resident_components_that_nobody_announced_come_when_they_are_needed(pair, workshop):
    with Resident() as residency:
        with residency.lend(list_parts(pair)[1]) as session:
            run(session)
        assert (len(workshop.sessions), workshop.count_open()) == (1, 1)


def test_requests_of_two_sizes_keep_their_own_until_they_end(pair, workshop):
    small, large = list_parts(pair), list_parts(pair, LARGE)
    with Resident() as first:
        first.begin(small)
        with Resident() as second:
            second.begin(large)
            for residency, parts in ((first, small), (second, large)):
                for part in parts:
                    with residency.lend(part) as session:
                        assert tuple(session.inputs.values()) == part.signature.inputs
                        run(session)
        assert workshop.count_open() == 4
    assert [each.closed for each in workshop.sessions] == [1, 1, 0, 0]


def test_a_request_that_fails_gives_back_what_it_holds(pair, workshop):
    def request():
        with Resident() as residency:
            residency.begin(list_parts(pair))
            raise EngineError("the denoiser failed")

    with pytest.raises(EngineError, match="the denoiser failed"):
        request()
    with Resident() as residency:
        residency.begin(list_parts(pair, LARGE))
    assert [each.closed for each in workshop.sessions] == [1, 1, 0, 0]


def test_staged_components_are_there_one_at_a_time(pair, workshop):
    with Staged() as residency:
        residency.begin(list_parts(pair))
        assert workshop.sessions == []
        for part in list_parts(pair):
            with residency.lend(part) as session:
                run(session)
                assert workshop.count_open() == 1
            assert workshop.count_open() == 0


def test_a_stage_that_fails_closes_its_session(pair, workshop):
    with (
        pytest.raises(EngineError, match="failed"),
        Staged() as residency,
        residency.lend(list_parts(pair)[0]),
    ):
        raise EngineError("the denoiser failed")
    assert workshop.count_open() == 0


def test_requests_in_the_same_stage_share_it(pair, workshop):
    part = list_parts(pair)[0]
    with Staged() as first, Staged() as second:
        with first.lend(part) as one:
            with second.lend(part) as other:
                assert one is other
            run(one)
        assert (len(workshop.sessions), workshop.count_open()) == (1, 0)


def test_resident_components_are_compiled_while_stages_before_them_run(pair, workshop):
    first, second = list_parts(pair)
    with Resident() as residency:
        residency.begin([first, second])
        *_, compiling = workshop.sessions
        compiling.may_leave.clear()
        residency.compile_ahead([second.of_batch(3)])
        with residency.lend(first) as session:
            assert compiling.entered.wait(20)
            run(session)
        compiling.may_leave.set()
        with residency.lend(second):
            assert compiling.compiled == [{"batch": 3}]


def test_a_component_that_does_not_compile_ahead_is_left_to_its_run(pair, workshop):
    def refuse(sizes):
        raise EngineError("no such size")

    _, second = list_parts(pair)
    with Resident() as residency:
        residency.begin([second])
        (session,) = workshop.sessions
        session._compile = refuse
        residency.compile_ahead([second.of_batch(3)])
        with residency.lend(second) as lent:
            run(lent)
    assert len(session.runs) == 1


def test_compilation_ends_before_a_request_that_fails_gives_back_its_sessions(pair, workshop):
    parts = list_parts(pair)

    def fail():
        with Resident() as residency:
            residency.begin(parts)
            compiling = workshop.sessions[-1]
            compiling.may_leave.clear()
            residency.compile_ahead([parts[1].of_batch(1)])
            assert compiling.entered.wait(20)
            threading.Timer(0.1, compiling.may_leave.set).start()
            raise EngineError("the text encoder failed")

    with pytest.raises(EngineError, match="the text encoder failed"):
        fail()
    assert workshop.sessions[-1].compiled == [{"batch": 1}]


def test_staged_components_compile_nothing_ahead(pair, workshop):
    with Staged() as residency:
        residency.compile_ahead([each.of_batch(1) for each in list_parts(pair)])
    assert workshop.sessions == []


@pytest.mark.parametrize("kind", [Resident, Staged])
def test_only_preparing_counts(kind, pair, workshop):
    build, pause = workshop._build, 0.03

    def build_slowly(asked):
        time.sleep(pause)
        return build(asked)

    workshop._build = build_slowly
    started = time.perf_counter()
    with kind() as residency:
        residency.begin(list_parts(pair))
        for part in list_parts(pair):
            with residency.lend(part):
                time.sleep(2 * pause)
        elapsed = time.perf_counter() - started
        assert 2 * pause <= residency.seconds <= elapsed - 4 * pause
