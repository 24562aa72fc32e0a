"""Rows with conditionings and timesteps of their own, in one batch of a session."""

import gc
import weakref

import numpy as np
import pytest
from toy_session import DENOISER, ToySession, denoise, draw, draw_conditioning

from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.runtime.session import Row


def open_denoiser():
    return ToySession(denoise, DENOISER)


def make_row(session, seed, timestep, timesteps=None):
    handle = session.condition(draw_conditioning(seed), timesteps or [timestep])
    sample = np.random.default_rng(100 + seed).standard_normal(3).astype("float32")
    return Row(handle, sample, timestep)


def run_alone(seed, timestep):
    """What a row gives with nobody beside it."""
    session = open_denoiser()
    row = make_row(session, seed, timestep)
    feeds = {"sample": row.sample[None], "timestep": np.array([timestep], np.float32)}
    return session.run(**feeds, **draw_conditioning(seed))["prediction"][0]


def test_rows_of_one_batch_have_their_own_conditionings_and_timesteps():
    session = open_denoiser()
    rows = [make_row(session, seed, timestep) for seed, timestep in enumerate((801, 1.5, 0.1))]
    given = session.run_rows(rows)
    assert given.shape == (3, 3)
    for seed, row in enumerate(rows):
        np.testing.assert_array_equal(given[seed], run_alone(seed, row.timestep))
    # In any order, in any company, again and again.
    for chosen in ([2, 0], [1], [0, 0, 1], [0, 1, 2]):
        wanted = [given[index] for index in chosen]
        np.testing.assert_array_equal(session.run_rows([rows[index] for index in chosen]), wanted)


def test_the_engine_gets_its_inputs_in_order_and_shared_ones_once():
    session = open_denoiser()
    session.run_rows([make_row(session, 0, 1), make_row(session, 1, 2)])
    (feeds,) = session.runs
    assert list(feeds) == ["sample", "text", "timestep", "ids"]
    assert [feeds[name].shape for name in feeds] == [(2, 3), (2, 2), (2,), (4,)]
    np.testing.assert_array_equal(feeds["timestep"], np.array([1, 2], np.float32))


def test_a_conditioning_is_the_sessions_own():
    session, arrays = open_denoiser(), draw_conditioning(0)
    handle = session.condition(arrays, [3])
    arrays["text"][...] = 0
    row = make_row(session, 0, 3)
    np.testing.assert_array_equal(
        session.run_rows([row._replace(handle=handle)]), session.run_rows([row])
    )


def test_what_rows_share_must_be_the_same():
    session = open_denoiser()
    first = make_row(session, 0, 3)
    other = session.condition({**draw_conditioning(0), "ids": np.arange(1, 5)}, [3])
    with pytest.raises(EngineError, match="part: 'ids' differs between the rows of a batch"):
        session.run_rows([first, first._replace(handle=other)])
    for handle in (first.handle, other):
        session.run_rows([first._replace(handle=handle)])


def test_a_timestep_that_was_not_announced_is_refused():
    session = open_denoiser()
    row = make_row(session, 0, 401, timesteps=[801, 401])
    session.run_rows([row, row._replace(timestep=801)])
    with pytest.raises(EngineError, match="timestep 201, which it was not conditioned") as caught:
        session.run_rows([row, row._replace(timestep=201)])
    assert caught.value.allowed == "401.0, 801.0"
    assert len(session.runs) == 1


def test_the_handle_of_another_session_is_refused():
    row = make_row(open_denoiser(), 0, 3)
    with pytest.raises(EngineError, match="part: a row's handle is another session's"):
        open_denoiser().run_rows([row])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"text": np.zeros((2, 2), np.float32)}, r"'text' is float32 \(2, 2\)"),
        ({"ids": np.arange(5)}, r"'ids' is int64 \(5\)"),
        ({"sample": np.zeros((1, 3), np.float32)}, "unknown input 'sample'"),
        ({"timestep": np.zeros(1, np.float32)}, "unknown input 'timestep'"),
    ],
)
def test_a_conditioning_is_that_of_one_row(change, problem):
    with pytest.raises(EngineError, match=problem):
        open_denoiser().condition({**draw_conditioning(), **change}, [3])


def test_a_conditioning_is_complete():
    with pytest.raises(EngineError, match="input 'text' was not given"):
        open_denoiser().condition({"ids": np.arange(4)}, [3])


def test_what_takes_no_timestep_has_nothing_to_condition():
    with pytest.raises(EngineError, match="part takes no timestep") as caught:
        ToySession().condition({}, [3])
    assert caught.value.allowed == "sample, ids"


def test_a_closed_session_conditions_and_runs_nothing():
    session = open_denoiser()
    row = make_row(session, 0, 3)
    session.close()
    for task in (
        lambda: session.condition(draw_conditioning(), [3]),
        lambda: session.run_rows([row]),
        lambda: session.prepare(sample=row.sample[None], **draw_conditioning()),
    ):
        with pytest.raises(EngineError, match="part: the toy session is closed"):
            task()


def test_a_handle_that_goes_frees_what_was_kept_for_it():
    session = open_denoiser()
    rows = [make_row(session, seed, 3) for seed in range(3)]
    session.run_rows(rows)
    session.runs.clear()
    handles = [weakref.ref(row.handle) for row in rows]
    del rows[1]
    gc.collect()
    assert [each() is None for each in handles] == [False, True, False]
    session.run_rows(rows)


def test_errors_of_an_engine_name_it():
    def fail(sample, text, timestep, ids):
        raise MemoryError("std::bad_alloc")

    session = ToySession(fail, DENOISER)
    row = make_row(session, 0, 3)
    with pytest.raises(EngineError, match=r"^toy failed to run part: MemoryError: std::bad_alloc$"):
        session.run_rows([row])


def test_what_is_prepared_runs_the_same_again_and_again():
    session = open_denoiser()
    random = np.random.default_rng(0)
    feeds = {
        "sample": random.standard_normal((2, 3)).astype("float32"),
        "text": random.standard_normal((2, 2)).astype("float32"),
        "timestep": np.array([801, 0.3], np.float32),
        "ids": np.arange(4),
    }
    run_once, wanted = session.prepare(**feeds), session.run(**feeds)["prediction"]
    for _ in range(2):
        np.testing.assert_array_equal(run_once(), wanted)
    plain = ToySession()
    np.testing.assert_array_equal(
        plain.prepare(**draw())()["output"], plain.run(**draw())["output"]
    )
