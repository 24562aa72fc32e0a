import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastdeploy_diffusion.benchmark.compare import (
    Difference,
    compare_results,
    format_differences,
    parse_share,
)
from fastdeploy_diffusion.benchmark.result import RESULT_FILE, read_result
from fastdeploy_diffusion.benchmark.summary import Interval
from fastdeploy_diffusion.cli.app import app
from fastdeploy_diffusion.errors import ConfigError

RECORDED = Path(__file__).with_name("recorded.json")


def scale(result, factor, spread=0.002):
    """A result whose pictures took so many times as long, nearly all alike."""
    stream = random.Random(1)

    def change(row):
        base = row.samples.pictures[0]
        pictures = tuple(base * factor * (1 + spread * stream.random()) for _ in range(9))
        return row.model_copy(
            update={"samples": row.samples.model_copy(update={"pictures": pictures, "stages": {}})}
        )

    return result.model_copy(update={"rows": tuple(map(change, result.rows))})


@pytest.fixture(scope="module")
def before():
    return scale(read_result(RECORDED), 1)


def test_intervals_hold_what_changed(before):
    for each in compare_results(before, scale(before, 1.2), False):
        assert each.what == "picture"
        assert each.interval.low <= 1.2 * 1.002
        assert each.interval.high >= 1.2 * 0.998
        assert each.is_slower(0.05)
        assert not each.is_slower(0.25)
        assert not each.is_slower(None)


def test_a_wide_interval_is_no_regression(before):
    noisy = scale(before, 1.0, spread=0.5)
    assert not any(each.is_slower(0.05) for each in compare_results(noisy, noisy, False))


def make_difference(what="picture", *, ratio=1.0, low=1.0, high=1.0):
    return Difference("paddle fp32", what, 2.0, 2.0 * ratio, Interval(ratio, low, high))


def test_only_what_is_surely_beyond_the_limit_is_slower():
    """By the low end of the interval: the ratio may lie beyond by chance."""
    assert make_difference(ratio=1.2, low=1.06, high=1.3).is_slower(0.05)
    assert not make_difference(ratio=1.2, low=1.04, high=1.4).is_slower(0.05)
    assert not make_difference(ratio=1.2, low=1.05, high=1.4).is_slower(0.05)
    assert not make_difference(ratio=0.8, low=0.7, high=0.9).is_slower(0.05)
    assert not make_difference(ratio=1.2, low=1.1, high=1.3).is_slower(None)
    # A stage may grow where another shrinks.
    assert not make_difference("step", ratio=1.2, low=1.1, high=1.3).is_slower(0.05)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.01, 1.3, "slower"),
        (0.7, 0.99, "faster"),
        (0.9, 1.2, "no difference shown"),
        (1.0, 1.2, "no difference shown"),
        (0.9, 1.0, "no difference shown"),
    ],
)
def test_verdicts_follow_from_the_interval(low, high, verdict):
    ratio = (low + high) / 2
    text = format_differences([make_difference(ratio=ratio, low=low, high=high)], None)
    assert text.splitlines()[0] == "paddle fp32"
    assert text.endswith(f"  {verdict}")
    assert f"[{100 * (low - 1):+.1f} %, {100 * (high - 1):+.1f} %]" in text


def set_samples(result, pictures, stages):
    row = result.rows[0]
    samples = row.samples.model_copy(update={"pictures": pictures, "stages": stages})
    return result.model_copy(update={"rows": (row.model_copy(update={"samples": samples}),)})


def test_before_and_after_do_not_change_places(before):
    old = set_samples(before, (1.0, 1.0, 4.0), {"step": (0.5, 0.5)})
    new = set_samples(before, (2.0, 2.0, 3.0), {"step": (0.4, 0.4)})
    picture, step = compare_results(old, new, False)
    assert (picture.what, picture.before, picture.after, picture.interval.ratio) == (
        *("picture", 1, 2, 2),
    )
    assert (step.what, step.before, step.after) == ("step", 0.5, 0.4)
    assert step.interval.ratio == pytest.approx(0.8)


def test_single_samples_and_trifles_are_not_compared(before):
    """Of a stage that takes less than a thousandth of the pictures' time nobody asks."""
    many = {"step": (0.5, 0.5), "prologue": (0.5,), "vae_decoder": (9e-4, 9e-4)}
    result = set_samples(before, (1.0, 1.0), many)
    assert [each.what for each in compare_results(result, result, False)] == ["picture", "step"]
    larger = set_samples(before, (1.0, 1.0), {**many, "vae_decoder": (1.1e-3, 1.1e-3)})
    assert len(compare_results(larger, larger, False)) == 3
    assert len(compare_results(larger, result, False)) == 2
    assert len(compare_results(result, larger, False)) == 2
    with pytest.raises(ConfigError, match="measured twice at least"):
        compare_results(result, set_samples(before, (1.0,), {}), False)


def test_another_model_is_refused_whatever_its_name(before):
    other = before.model_copy(update={"model": before.model.model_copy(update={"digest": "0"})})
    with pytest.raises(ConfigError, match="the models are"):
        compare_results(before, other, False)
    renamed = before.model_copy(update={"config": {**before.config, "model_path": "elsewhere"}})
    assert compare_results(before, renamed, False)


def test_stages_are_compared_as_well():
    recorded = read_result(RECORDED)
    found = {each.what for each in compare_results(recorded, recorded, False)}
    assert {"picture", "step", "vae_decoder"} <= found


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"machine": {"cpu": "another"}}, "the machine's cpu is"),
        ({"config": {"scheduler": "lcm"}}, "; scheduler is None, and 'lcm'"),
    ],
)
def test_other_machines_and_settings_are_refused(before, update, message):
    other = before.model_copy(update=update)
    with pytest.raises(ConfigError, match=message):
        compare_results(before, other, False)
    assert compare_results(before, other, True)


def test_results_without_a_common_case_are_refused(before):
    other = before.model_copy(update={"rows": ()})
    with pytest.raises(ConfigError, match="no case in common"):
        compare_results(before, other, False)


def test_shares():
    assert parse_share("5%") == 0.05
    assert parse_share("2.5 %") == 0.025
    assert parse_share(None) is None
    with pytest.raises(ConfigError, match="a percentage"):
        parse_share("5")


def test_the_command_fails_only_beyond_the_limit(before, tmp_path):
    for name, factor in (("a", 1), ("b", 1.2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / RESULT_FILE).write_text(scale(before, factor).model_dump_json())
    words = ["bench", "compare", str(tmp_path / "a"), str(tmp_path / "b" / RESULT_FILE)]
    slower = CliRunner().invoke(app, [*words, "--fail-if-slower", "5%"])
    assert slower.exit_code == 1
    assert "SLOWER" in slower.stdout
    assert CliRunner().invoke(app, [*words, "--fail-if-slower", "30%"]).exit_code == 0
    assert CliRunner().invoke(app, words).exit_code == 0
    assert CliRunner().invoke(app, [*words, "--fail-if-slower", "5"]).exit_code == 2
