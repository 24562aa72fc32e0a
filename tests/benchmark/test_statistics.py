import numpy as np
import pytest

from fastdeploy_diffusion.benchmark.summary import Interval, estimate_ratio, summarise


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


def test_few_samples_by_hand():
    """Percentiles are interpolated between neighbours: p90 of four lies 0.7 of the way up."""
    summary = summarise([6.0, 1.0, 3.0, 2.0])
    assert (summary.count, summary.minimum, summary.mean) == (4, 1, 3)
    assert (summary.p25, summary.p50, summary.p75) == (1.75, 2.5, 3.75)
    assert summary.p90 == pytest.approx(5.1)
    assert summary.p95 == pytest.approx(5.55)
    assert summary.p99 == pytest.approx(5.91)
    assert summary.spread == pytest.approx(2 / 2.5)
    single = summarise([4.0])
    assert (single.minimum, single.p25, single.p99, single.mean) == (4, 4, 4, 4)


def test_a_tenth_of_the_median_is_the_limit_of_what_is_steady():
    assert summarise([9.0, 9.5, 10.0, 10.5, 11.0]).spread == 0.1
    assert not summarise([9.0, 9.5, 10.0, 10.5, 11.0]).is_unsteady
    assert summarise([9.0, 9.4, 10.0, 10.5, 11.0]).is_unsteady
    # The extremes do not count; nor is there a share of nothing.
    assert not summarise([0.0, 10.0, 10.0, 10.0, 90.0]).is_unsteady
    assert summarise([0.0, 0.0, 0.0]).spread == 0


def test_a_ratio_is_that_of_the_medians_later_by_earlier():
    assert estimate_ratio([2.0, 2.0, 2.0], [3.0, 3.0]) == Interval(1.5, 1.5, 1.5)
    # Of means it would be 1.5 and 3.5.
    assert estimate_ratio([1.0, 1.0, 4.0], [3.0, 3.0, 3.0]).ratio == 3
    assert estimate_ratio([2.0, 2.0, 2.0], [1.0, 1.0, 19.0]).ratio == 0.5


@pytest.mark.parametrize(("count", "low", "high"), [(2, 1, 2), (7, 2, 6), (9, 2, 8)])
def test_an_interval_by_hand(count, low, high):
    """Of as many draws from 1 … n, the median is below ``low`` in less than 1 of 40 cases.

    It is ``low`` or less in more: for 9, in 3.05 %, which tells 95 % from 90; for 7 it is 1 in
    1.02 %, which tells 95 from 98.
    """
    numbers = [float(number) for number in range(1, count + 1)]
    later = estimate_ratio([1.0] * 3, numbers)
    assert later == Interval((count + 1) / 2, low, high)
    earlier = estimate_ratio(numbers, [1.0] * 3)
    assert (earlier.low, earlier.high) == pytest.approx((1 / high, 1 / low))


def test_both_sides_are_drawn_each_for_itself():
    """Were the same rows drawn of both, their ratio would never differ from 1."""
    numbers = [1.0, 2.0, 4.0, 8.0, 16.0]
    interval = estimate_ratio(numbers, numbers)
    assert interval.ratio == 1
    assert interval.low < 0.5
    assert interval.high > 2
