"""Further measurements of our fastest cases: rooflines, and each pass in turns."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from fastdeploy_diffusion.benchmark.case import Case
from fastdeploy_diffusion.benchmark.child_process import ChildError, ChildProcess
from fastdeploy_diffusion.benchmark.result import INTERRUPTED, Ablation, Missing
from fastdeploy_diffusion.benchmark.roofline.roofline import Roofline
from fastdeploy_diffusion.benchmark.row import Row
from fastdeploy_diffusion.benchmark.summary import summarise
from fastdeploy_diffusion.benchmark.workplace import Workplace

Found = TypeVar("Found", Ablation, Roofline)


def choose_fastest(rows: Sequence[Row]) -> list[Case]:
    """Choose our fastest case of each piece of work."""
    fastest: dict[object, Row] = {}
    for row in rows:
        if row.case.is_own and row.samples.pictures:
            other = fastest.setdefault(row.case.work, row)
            if summarise(row.samples.pictures).p50 < summarise(other.samples.pictures).p50:
                fastest[row.case.work] = row
    return [row.case for row in fastest.values()]


def ablate(place: Workplace, case: Case) -> list[Ablation | Missing]:
    """Time each component without passes, with each alone and with all, in turns."""

    def ask(child: ChildProcess) -> list[Ablation | Missing]:
        return [
            Ablation(
                case=case,
                component=trial["component"],
                passes=trial["passes"],
                relative_error=trial["error"],
                before=tuple(trial["before"]),
                after=tuple(trial["after"]),
            )
            for trial in child.ask("ablate")["trials"]
        ]

    return _ask(place, case, "passes", ask)


def measure_roofline(place: Workplace, case: Case) -> list[Roofline | Missing]:
    """Measure the engine's peaks, and how near each component comes to them; as `ablate`."""

    def ask(child: ChildProcess) -> list[Roofline | Missing]:
        surveys = child.ask("survey", batch=case.work.batch)["surveys"]
        return [Roofline.model_validate({"case": case, **survey}) for survey in surveys]

    return _ask(place, case, "roofline", ask)


def _ask(
    place: Workplace, case: Case, what: str, ask: Callable[[ChildProcess], list[Found | Missing]]
) -> list[Found | Missing]:
    """Ask a process that has loaded a case; give what is missing if it does not answer."""
    name = f"{what} of {case}"
    place.show(name)
    try:
        with place.start(case) as child:
            child.open(place.describe_task(case))
            return ask(child)
    except ChildError as error:
        return [Missing(case=name, reason=str(error))]
    except KeyboardInterrupt:
        return [Missing(case=name, reason=INTERRUPTED)]
