import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastdeploy_diffusion.benchmark.compare import compare_results, parse_share
from fastdeploy_diffusion.benchmark.result import RESULT_FILE, read_result
from fastdeploy_diffusion.cli import app
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


def test_stages_are_compared_as_well():
    recorded = read_result(RECORDED)
    found = {each.what for each in compare_results(recorded, recorded, False)}
    assert {"picture", "step", "vae_decoder"} <= found


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"machine": {"cpu": "another"}}, "the machine's cpu is"),
        ({"config": {"scheduler": "lcm"}}, "scheduler is None, and 'lcm'|scheduler is"),
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
