"""Batches of several sizes: each is compiled for, and only the last few compilations stay."""

import weakref

import numpy as np
import openvino
import pytest
from engine_programs import Case, ConvBlock, draw_feeds, float_spec
from runnable import spec_for

from fastdeploy_diffusion.engines.openvino import KEPT_BATCHES
from fastdeploy_diffusion.engines.registry import create_engine

CASE = Case(
    lambda: ConvBlock(8),
    (float_spec("sample", None, 8, 4, 4), float_spec("embedding", None, 8)),
    (float_spec("output", None, 8, 4, 4),),
)


@pytest.fixture
def session(tmp_path):
    engine, program, spec = create_engine("openvino"), CASE.program("block"), spec_for("openvino")
    engine.build(program, spec, tmp_path)
    with engine.load(program, spec, tmp_path) as session:
        yield session


@pytest.fixture
def requests(monkeypatch):
    """What was compiled, and is gone when nobody holds it any more."""
    made, create = [], openvino.CompiledModel.create_infer_request

    def create_and_tell(model):
        request = create(model)
        made.append(weakref.ref(request))
        return request

    monkeypatch.setattr(openvino.CompiledModel, "create_infer_request", create_and_tell)
    return made


def count_open(requests):
    return sum(each() is not None for each in requests)


def test_the_batches_that_ran_last_stay(session, requests):
    def run(*batches):
        for batch in batches:
            assert len(session.run(**draw_feeds(CASE, batch, free=batch))["output"]) == batch

    few = range(1, KEPT_BATCHES + 1)
    run(*few, *few)
    assert len(requests) == count_open(requests) == KEPT_BATCHES
    run(1, KEPT_BATCHES + 1)  # in place of 2, which ran the longest ago
    assert (len(requests), count_open(requests)) == (KEPT_BATCHES + 1, KEPT_BATCHES)
    run(1)
    assert len(requests) == KEPT_BATCHES + 1
    run(2)
    assert (len(requests), count_open(requests)) == (KEPT_BATCHES + 2, KEPT_BATCHES)
    session.close()
    assert count_open(requests) == 0


def test_a_batch_gives_the_same_however_often_it_was_compiled(session):
    feeds = [draw_feeds(CASE, 0, free=batch) for batch in range(1, KEPT_BATCHES + 3)]
    wanted = [session.run(**each)["output"] for each in feeds]
    for given, each in zip(wanted, feeds, strict=True):
        np.testing.assert_array_equal(session.run(**each)["output"], given)


def test_a_batch_that_was_compiled_for_runs_without_another_compilation(session, requests):
    session.compile({"batch": 3})
    assert len(requests) == 1
    session.run(**draw_feeds(CASE, 3, free=3))
    assert len(requests) == 1
    session.run(**draw_feeds(CASE, 2, free=2))
    assert len(requests) == 2
