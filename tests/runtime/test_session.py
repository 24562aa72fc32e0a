"""What all sessions have in common, whatever their engine does."""

import threading

import numpy as np
import pytest
from toy_session import SIGNATURE, ToySession, draw

from fastdeploy_diffusion.errors import CacheError, EngineError, NonFiniteError
from fastdeploy_diffusion.runtime.program import Program, Signature, TensorSpec
from fastdeploy_diffusion.runtime.session import OperatorTime, Session, differ_in_batch_only


def test_outputs_that_lie_on_the_engines_buffer_are_copied():
    buffer = np.zeros((4, 3), np.float32)

    def compute(sample, ids):
        buffer[:2] = sample
        return {"output": buffer[:2]}

    session = ToySession(compute)
    first = session.run(**draw(1))["output"]
    session.run(**draw(2))
    np.testing.assert_array_equal(first, draw(1)["sample"])
    assert not np.shares_memory(first, buffer)


def test_feeds_reach_the_engine_in_the_order_of_the_specs():
    session = ToySession()
    feeds = draw()
    session.bind(ids=feeds["ids"])
    given = session.run(sample=feeds["sample"])
    assert [list(feeds) for feeds in session.runs] == [["sample", "ids"]]
    assert list(given) == ["output"]
    np.testing.assert_array_equal(given["output"], 2 * feeds["sample"])


def test_what_is_bound_is_the_sessions_own():
    session = ToySession()
    feeds = draw()
    sample = feeds["sample"].copy()
    session.bind(sample=sample)
    sample[...] = 0
    np.testing.assert_array_equal(session.run(ids=feeds["ids"])["output"], 2 * feeds["sample"])


HOLDING = {
    "run": lambda session: session.run(**draw()),
    "bind": lambda session: session.bind(**draw()),
    "profile": lambda session: session.profile(**draw()),
    "close": lambda session: session.close(),
}


@pytest.mark.parametrize("name", HOLDING)
def test_everything_waits_for_a_run_to_end(name):
    session = ToySession()
    session.may_leave.clear()
    ended, done = [], threading.Event()

    def follow():
        HOLDING[name](session)
        ended.append(name)
        done.set()

    running = threading.Thread(target=lambda: ended.append(session.run(**draw())["output"].shape))
    following = threading.Thread(target=follow)
    running.start()
    assert session.entered.wait(20)
    following.start()
    assert not done.wait(0.1)  # at once, if it did not wait
    session.may_leave.set()
    running.join()
    following.join()
    assert ended == [(2, 3), name]
    assert session.overlaps == 0


@pytest.mark.parametrize("name", [name for name in HOLDING if name != "close"])
def test_a_closed_session_does_nothing(name):
    session = ToySession()
    session.close()
    session.close()
    with pytest.raises(EngineError, match="part: the toy session is closed") as caught:
        HOLDING[name](session)
    assert caught.value.fix == "load it again"
    assert (session.closed, session.runs) == (1, [])


def test_a_block_closes_it_also_when_it_fails():
    session = ToySession()
    with session as entered:
        assert entered is session
    assert session.closed == 1
    failing = ToySession()
    with pytest.raises(ZeroDivisionError), failing:
        raise ZeroDivisionError
    assert failing.closed == 1


@pytest.mark.parametrize("task", ["run", "profile"])
def test_what_an_engine_raises_is_told_with_component_and_type(task):
    def fail(sample, ids):
        raise MemoryError("std::bad_alloc")

    session = ToySession(fail)
    with pytest.raises(
        EngineError, match=f"^toy failed to {task} part: MemoryError: std::bad_alloc$"
    ) as caught:
        getattr(session, task)(**draw())
    assert isinstance(caught.value.__cause__, MemoryError)

    def fail_typed(sample, ids):
        raise CacheError("nothing is kept")

    with pytest.raises(CacheError, match=r"^nothing is kept$"):
        getattr(ToySession(fail_typed), task)(**draw())


def test_a_run_that_fails_leaves_the_session_usable():
    session = ToySession(lambda sample, ids: {"output": np.log(sample)})
    bad, good = draw(), draw()
    bad["sample"] = np.zeros((2, 3), np.float32)
    good["sample"] = np.ones((2, 3), np.float32)
    with pytest.raises(NonFiniteError), np.errstate(divide="ignore"):
        session.run(**bad)
    assert not session.run(**good)["output"].any()


def test_profile_sees_what_is_bound():
    session = ToySession()
    feeds = draw()
    session.bind(sample=feeds["sample"])
    (operator,) = session.profile(ids=feeds["ids"])
    assert operator == OperatorTime("all", "Toy", (2 * feeds["sample"]).sum())
    with pytest.raises(EngineError, match="'sample' is bound and fed"):
        session.profile(**feeds)


def test_an_engine_that_does_not_tell_its_operators_says_so():
    class Silent(ToySession):
        _profile = Session._profile

    with pytest.raises(EngineError, match=r"^toy cannot measure its operators here$"):
        Silent().profile(**draw())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_no_numbers_are_counted(value):
    def spoil(sample, ids):
        output = sample.copy()
        output[0, 1:] = value
        return {"output": output}

    with pytest.raises(NonFiniteError) as caught:
        ToySession(spoil).run(**draw())
    assert caught.value.problem == (
        "part: toy returned output 'output', which holds NaN or infinity in 2 of 6 values"
    )


def test_outputs_without_fractions_are_not_looked_at_for_nan():
    whole = Signature(SIGNATURE.inputs, (TensorSpec("output", (2,), "int64"),))
    given = ToySession(lambda sample, ids: {"output": ids}, whole).run(**draw())
    np.testing.assert_array_equal(given["output"], draw()["ids"])


def test_outputs_must_be_what_the_specs_say():
    session = ToySession(lambda sample, ids: {"output": sample[:1]})
    with pytest.raises(EngineError, match=r"output 'output', which is float32 \(1, 3\)"):
        session.run(**draw())


def test_a_session_shows_its_signature_and_keeps_it():
    session = ToySession()
    assert tuple(session.inputs.values()) == SIGNATURE.inputs
    assert tuple(session.outputs.values()) == SIGNATURE.outputs
    for specs in (session.inputs, session.outputs):
        with pytest.raises(TypeError):
            specs["other"] = SIGNATURE.inputs[0]


def test_an_engine_must_run_and_close():
    with pytest.raises(TypeError, match="abstract"):
        Session("toy", Program("part", None, *SIGNATURE))


@pytest.mark.parametrize(
    ("shapes", "others", "wanted"),
    [
        ([(2, 4, 8, 8), (2,)], [(6, 4, 8, 8), (6,)], True),
        ([(2, 4, 8, 8), (2,)], [(2, 4, 8, 8), (2,)], True),
        ([(2, 4, 8, 8), (2,)], [(2, 4, 8, 9), (2,)], False),
        ([(2, 4, 8, 8), (2,)], [(2, 4, 8, 8), (2, 1)], False),
        ([(2, 4, 8, 8)], [(2, 4, 8, 8), (2,)], False),
    ],
)
def test_shapes_of_one_size(shapes, others, wanted):
    assert differ_in_batch_only(tuple(shapes), tuple(others)) is wanted
