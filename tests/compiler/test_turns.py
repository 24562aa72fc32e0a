import time

import numpy as np
import pytest

from fastdeploy_diffusion.compiler.turns import TurnTimings, time_in_turns
from fastdeploy_diffusion.runtime.program import Program, TensorSpec
from fastdeploy_diffusion.runtime.session import Session

SPEC = (TensorSpec("x", (2,), "float32"),)
FEEDS = {"x": np.zeros(2, np.float32)}


class Sleeper(Session):
    """Takes a known time."""

    def __init__(self, name, seconds, calls):
        super().__init__("sleeper", Program(name, None, SPEC, SPEC))
        self.seconds, self.calls, self.name = seconds, calls, name

    def _run(self, feeds):
        self.calls.append(self.name)
        time.sleep(self.seconds)
        return dict(feeds)

    def _close(self):
        pass


def test_the_faster_one_is_told_from_the_slower():
    calls = []
    slow, fast = Sleeper("slow", 0.03, calls), Sleeper("fast", 0.005, calls)
    timings = time_in_turns(slow, fast, FEEDS)
    assert timings.median_before >= 0.03
    assert 0.005 <= timings.median_after < 0.03
    assert timings.median_ratio > 1.5
    assert time_in_turns(fast, slow, FEEDS).median_ratio < 1 / 1.5


def test_each_warms_up_and_they_take_turns_in_beginning():
    calls = []
    timings = time_in_turns(Sleeper("a", 0, calls), Sleeper("b", 0, calls), FEEDS)
    assert 4 * len(timings.before) == 4 * len(timings.after) == len(calls)
    turns = ["".join(calls[index : index + 4]) for index in range(0, len(calls), 4)]
    assert turns[:4] == ["aabb", "bbaa", "aabb", "bbaa"]
    assert len(set(turns[::2])) == len(set(turns[1::2])) == 1


def test_a_slow_pair_gets_few_turns(monkeypatch):
    monkeypatch.setattr("fastdeploy_diffusion.compiler.turns._SECONDS", 0.0)
    calls = []
    timings = time_in_turns(Sleeper("a", 0, calls), Sleeper("b", 0, calls), FEEDS)
    assert len(timings.ratios) == 5


def test_ratios_are_those_of_turns():
    timings = TurnTimings((2.0, 4.0, 9.0, 8.0, 10.0), (1.0, 4.0, 3.0, 2.0, 2.0))
    assert timings.ratios == (2, 1, 3, 4, 5)
    assert (timings.median_before, timings.median_after) == (8, 2)
    assert timings.median_ratio == 3
    assert timings.quartiles == pytest.approx((2, 4))
