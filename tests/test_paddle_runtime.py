"""Paddle's mode: one of the process and of each thread at the same time."""

import sys
import threading

import pytest

from fastdeploy_diffusion.paddle_runtime import eager_mode, paddle, static_mode


def run_in_thread(task):
    found = []
    thread = threading.Thread(target=lambda: found.append(task()))
    thread.start()
    thread.join()
    return found[0]


def trace():
    program = paddle.static.Program()
    with static_mode(), paddle.static.program_guard(program):
        assert not paddle.in_dynamic_mode()
        shape = list((paddle.static.data("sample", [2], "float32") * 2).shape)
    return [shape, paddle.in_dynamic_mode()]


def compute():
    with eager_mode():
        return (paddle.to_tensor([1.0]) * 2).tolist()


def test_every_thread_may_trace_and_then_run():
    for _ in range(2):
        assert trace() == run_in_thread(trace) == [[2], True]
        assert compute() == run_in_thread(compute) == [2.0]


def test_operators_of_a_trace_have_no_call_stacks(monkeypatch):
    monkeypatch.setattr(sys, "tracebacklimit", 30, raising=False)
    program = paddle.static.Program()
    with static_mode(), paddle.static.program_guard(program):
        _ = paddle.static.data("sample", [2], "float32") * 2
    assert [len(each.callstack) for each in program.global_block().ops] == [0] * 3
    assert sys.tracebacklimit == 30


def test_a_trace_that_fails_leaves_eager_mode():
    with pytest.raises(ZeroDivisionError), static_mode():
        raise ZeroDivisionError
    assert paddle.in_dynamic_mode()
    assert not hasattr(sys, "tracebacklimit")
    assert run_in_thread(paddle.in_dynamic_mode)


def test_a_thread_that_meets_paddle_during_a_trace_runs_after_it():
    traced, met = threading.Event(), threading.Event()
    found = []

    def meet():
        found.append(paddle.in_dynamic_mode())
        met.set()
        assert traced.wait(20)
        found.append(compute())
        found.append(paddle.in_dynamic_mode())

    meeting = threading.Thread(target=meet)
    with static_mode():
        meeting.start()
        assert met.wait(20)
    traced.set()
    meeting.join()
    assert found == [False, [2.0], True]
    assert run_in_thread(compute) == compute() == [2.0]


@pytest.mark.parametrize("first", [eager_mode, static_mode])
@pytest.mark.parametrize("second", [eager_mode, static_mode])
def test_modes_exclude_each_other(first, second):
    entered = threading.Event()

    def enter():
        with second():
            entered.set()

    thread = threading.Thread(target=enter)
    with first():
        thread.start()
        assert not entered.wait(0.1)
    thread.join()
    assert entered.is_set()
