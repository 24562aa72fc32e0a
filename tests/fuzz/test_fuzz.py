"""Spoilt files of models are opened, drawn with, or refused by an error that says what is wrong.

`fuzz_checkpoints.py` beside it tries as many more as there is time for.
"""

import pytest
from attempts import Attempts

SEEDS = range(300)


@pytest.fixture(scope="module")
def attempts(tmp_path_factory):
    return Attempts(tmp_path_factory.mktemp("fuzz"))


def test_spoilt_files_end_in_errors_of_the_library(attempts):
    ended = [attempts.run(seed) for seed in SEEDS]
    assert [each for each in ended if not each.is_right] == []
    # Neither does everything fail, nor nothing.
    outcomes = [each.outcome for each in ended]
    assert outcomes.count("CheckpointError") > 60
    assert outcomes.count("opened") > 20
    assert outcomes.count("drawn") > 3
