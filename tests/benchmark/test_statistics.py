import numpy as np
import pytest

from fastdeploy_diffusion.benchmark.bootstrap import estimate_ratio
from fastdeploy_diffusion.benchmark.summary import summarise


def test_percentiles_of_a_hundred_and_one():
    summary = summarise([float(number) for number in range(100, -1, -1)])
    assert (summary.count, summary.minimum, summary.mean) == (101, 0, 50)
    assert (summary.p25, summary.p50, summary.p75) == (25, 50, 75)
    assert (summary.p90, summary.p95, summary.p99) == (90, 95, 99)


def test_what_is_unsteady():
    assert not summarise([1.0, 1.0, 1.01, 1.02, 3.0]).is_unsteady
    assert summarise([1.0, 1.0, 1.1, 1.3, 1.3]).is_unsteady
    with pytest.raises(ValueError, match="no samples"):
        summarise([])


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(1)
    held = 0
    for _ in range(40):
        before, after = (random.lognormal(0, 0.1, 25) * scale for scale in (1, 1.2))
        interval = estimate_ratio(before.tolist(), after.tolist())
        held += interval.low <= 1.2 <= interval.high
        assert interval.low <= interval.ratio <= interval.high
    assert 34 <= held <= 40


def test_the_same_samples_give_the_same_interval():
    samples = [1.0, 1.1, 1.2]
    first = estimate_ratio(samples, samples)
    assert first == estimate_ratio(samples, samples)
    assert first.ratio == 1
