"""Compares two results: what became slower or faster, and how sure that is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fastdeploy_diffusion.benchmark.report.table import format_seconds
from fastdeploy_diffusion.benchmark.result import BenchmarkResult
from fastdeploy_diffusion.benchmark.row import STAGES, Row
from fastdeploy_diffusion.benchmark.summary import Interval, estimate_ratio, summarise
from fastdeploy_diffusion.errors import ConfigError

_FEWEST = 2  # samples of each
_LEAST = 1e-3  # of a picture's time: what takes less is not worth a line


@dataclass(frozen=True)
class Difference:
    """One figure of a case, before and after.

    Args:
        what: ``"picture"``, or a stage.
        interval: Of after / before.
    """

    case: str
    what: str
    before: float
    after: float
    interval: Interval

    def is_slower(self, limit: float | None) -> bool:
        """Whether a whole picture surely takes longer, by more than a share of before."""
        return self.what == "picture" and limit is not None and self.interval.low > 1 + limit


def parse_share(text: str | None) -> float | None:
    """Read ``5%`` as 0.05.

    Raises:
        ConfigError: It is not a percentage.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%", text)
    if match is None:
        raise ConfigError(f"--fail-if-slower {text}", allowed="a percentage, as 5%")
    return float(match[1]) / 100


def compare_results(
    before: BenchmarkResult, after: BenchmarkResult, allow_different: bool
) -> list[Difference]:
    """Compare the cases that both results have.

    Args:
        allow_different: Whether machine, model and configuration may differ.

    Raises:
        ConfigError: They may not, and do; or no case is in both.
    """
    if not allow_different and (differences := _list_differences(before, after)):
        raise ConfigError(
            f"the results cannot be compared: {'; '.join(differences)}",
            allowed="results of the same machine, model and configuration",
            fix="--allow-different, if that is what you want to know",
        )
    earlier = {row.case: row for row in before.rows}
    pairs = [(earlier[row.case], row) for row in after.rows if row.case in earlier]
    found = [each for pair in pairs for each in _compare_rows(*pair)]
    if not found:
        raise ConfigError(
            "the results have no case in common that both measured twice at least",
            fix="measure the same engines, precisions, sizes and steps",
        )
    return found


def format_differences(differences: Sequence[Difference], limit: float | None) -> str:
    """Lay out what changed: a line for each figure."""
    lines = []
    for case in dict.fromkeys(each.case for each in differences):
        lines.append(case)
        for each in differences:
            if each.case == case:
                change, low, high = (
                    f"{100 * (ratio - 1):+.1f} %"
                    for ratio in (each.interval.ratio, each.interval.low, each.interval.high)
                )
                verdict = "SLOWER" if each.is_slower(limit) else _judge(each.interval)
                lines.append(
                    f"  {each.what:<16} {format_seconds(each.before):>8} → "
                    f"{format_seconds(each.after):>8}  {change:>9}  [{low}, {high}]  {verdict}"
                )
    return "\n".join(lines)


def _judge(interval: Interval) -> str:
    if interval.low > 1:
        return "slower"
    return "faster" if interval.high < 1 else "no difference shown"


def _compare_rows(before: Row, after: Row) -> list[Difference]:
    figures = {"picture": (before.samples.pictures, after.samples.pictures)}
    for stage in STAGES:
        figures[stage] = (
            before.samples.stages.get(stage, ()),
            after.samples.stages.get(stage, ()),
        )
    return [
        Difference(
            str(after.case), what, summarise(old).p50, summarise(new).p50, estimate_ratio(old, new)
        )
        for what, (old, new) in figures.items()
        if min(len(old), len(new)) >= _FEWEST
        and min(sum(old), sum(new)) > _LEAST * sum(before.samples.pictures)
    ]


def _list_differences(before: BenchmarkResult, after: BenchmarkResult) -> list[str]:
    found = [
        f"the machine's {name} is {before.machine.get(name)!r}, and {after.machine.get(name)!r}"
        for name in sorted(before.machine.keys() | after.machine.keys())
        if before.machine.get(name) != after.machine.get(name)
    ]
    if before.model.digest != after.model.digest:
        found.append(f"the models are {before.model.name} and {after.model.name}")
    found += [
        f"{name} is {before.config.get(name)!r}, and {after.config.get(name)!r}"
        for name in sorted(before.config.keys() | after.config.keys())
        # The model's digest says more than its name.
        if name != "model_path" and before.config.get(name) != after.config.get(name)
    ]
    return found
