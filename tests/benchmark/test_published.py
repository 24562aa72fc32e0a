"""What is published says of which code it speaks, and speaks of the last release or a later one.

A release is a tag ``v1.2.3``. Before the first one there is nothing to be older than.
"""

import json
from pathlib import Path

import pytest
from git_history import list_tags

from fastdeploy_diffusion import __version__
from fastdeploy_diffusion.benchmark.report.page import describe_age, read_published
from fastdeploy_diffusion.benchmark.result import RESULT_FILE, BenchmarkResult, read_result

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
FILES = sorted([*RESULTS.glob(f"*/{RESULT_FILE}"), *RESULTS.glob("*.json")])

every_file = pytest.mark.parametrize(
    "file", FILES, ids=lambda file: file.relative_to(RESULTS).as_posix()
)


def read(file):
    return json.loads(file.read_text(encoding="utf-8"))


def parse_version(text):
    return tuple(map(int, text.removeprefix("v").split(".")))


def find_previous_release(version, tags):
    """The newest release before a version; ``None`` if there is none."""
    releases = map(parse_version, tags)
    return max((each for each in releases if each < parse_version(version)), default=None)


def is_too_old(measured, version, tags):
    """Whether more than one release lies between what was measured and a version."""
    previous = find_previous_release(version, tags)
    return previous is not None and parse_version(measured) < previous


def test_there_are_results():
    assert len(FILES) >= 2


@every_file
def test_a_result_names_its_commit_and_version(file):
    found = read(file)
    assert len(found["git_revision"]) == 40, "commit all changes before you measure"
    assert found["started"][:2] == "20"
    assert parse_version(found["packages"]["fastdeploy-diffusion"]) <= parse_version(__version__)


@every_file
def test_a_result_is_of_a_commit_that_led_here(file, history):
    assert history(read(file)["git_revision"])


@every_file
def test_a_result_is_not_older_than_the_previous_release(file, history):
    measured = read(file)["packages"]["fastdeploy-diffusion"]
    assert not is_too_old(measured, __version__, list_tags()), "measure again: docs/benchmark.md"


@pytest.mark.parametrize(
    ("measured", "version", "tags", "expected"),
    [
        ("0.1.0", "0.1.0", [], False),
        ("0.1.0", "0.1.0", ["v0.1.0"], False),
        ("0.1.0", "0.2.0", ["v0.1.0"], False),
        ("0.1.0", "0.2.0", ["v0.1.0", "v0.2.0"], False),
        ("0.1.0", "0.3.0", ["v0.1.0", "v0.2.0"], True),
        ("0.1.0", "0.10.0", ["v0.1.0", "v0.9.0", "v0.2.0"], True),
        ("0.9.0", "0.10.0", ["v0.1.0", "v0.9.0", "v0.2.0"], False),
    ],
)
def test_one_release_may_lie_between(measured, version, tags, expected):
    assert is_too_old(measured, version, tags) == expected


def test_every_run_on_the_page_says_its_age():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    titles = [index for index, line in enumerate(lines) if line.startswith("## ")]
    published = read_published(RESULTS)
    assert [lines[index + 2] for index in titles] == [
        describe_age(result, __version__) for result in published.values()
    ]
    for result, index in zip(published.values(), titles, strict=True):
        assert f"at commit {result.git_revision[:7]} ({result.started[:10]})" in lines[index + 2]


@pytest.mark.parametrize(
    ("revision", "version", "expected"),
    [
        ("7cacd05e32b6", "0.1.0", "Measured at commit 7cacd05 (2026-11-21), version 0.1.0; later"),
        ("7cacd05e32b6+changes", "0.1.0", "Measured at commit 7cacd05, with changes, (2026"),
        (None, "0.1.0", "Measured at a commit that nobody noted (2026-11-21)"),
        ("7cacd05e32b6", "0.2.0", "**This is version 0.2.0: measure again.**"),
    ],
)
def test_the_age_is_told_by_commit_and_version(revision, version, expected):
    recorded = read_result(Path(__file__).with_name("recorded.json"))
    result = recorded.model_copy(update={"git_revision": revision})
    assert isinstance(result, BenchmarkResult)
    said = describe_age(result, version)
    assert expected in said
    assert ("measure again" in said) == (version != "0.1.0")
