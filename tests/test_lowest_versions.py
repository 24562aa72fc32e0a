"""The versions that `make test-lowest` tests are the lowest that setup.py allows."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def read_version(text):
    return tuple(map(int, text.split(".")))


def test_every_lower_bound_is_tested_or_says_why_not():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    before_dev, after_dev = setup.split('"dev": [')
    allowed = re.findall(r'"([\w-]+)>=([\d.]+)', before_dev + after_dev.partition("]")[2])
    assert len(allowed) > 15
    lines = (ROOT / "tests" / "lowest-versions.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    # What takes part in no test: no test needs NVIDIA's library for GPUs other than RTX.
    wanted = {name: lowest for name, lowest in allowed if name != "tensorrt"}
    assert sorted(tested) == list(tested) == sorted(wanted)
    for name, lowest in wanted.items():
        version, _, reason = tested[name].partition("  # ")
        given, bound = (read_version(each) for each in (version, lowest))
        assert given[: len(bound)] == bound or (given > bound and reason), name
