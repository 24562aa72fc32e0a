"""What each pass is worth, on the engine that was fastest."""

from collections.abc import Sequence

from fastdeploy_diffusion.benchmark.case import Case
from fastdeploy_diffusion.benchmark.child_process import ChildError
from fastdeploy_diffusion.benchmark.result import INTERRUPTED, Ablation, Missing
from fastdeploy_diffusion.benchmark.row import Row
from fastdeploy_diffusion.benchmark.summary import summarise
from fastdeploy_diffusion.benchmark.workplace import Workplace


def choose_fastest(rows: Sequence[Row]) -> list[Case]:
    """Choose our fastest case of each piece of work."""
    fastest: dict[object, Row] = {}
    for row in rows:
        if row.case.is_own and row.samples.pictures:
            other = fastest.setdefault(row.case.work, row)
            if summarise(row.samples.pictures).p50 < summarise(other.samples.pictures).p50:
                fastest[row.case.work] = row
    return [row.case for row in fastest.values()]


def ablate(place: Workplace, case: Case) -> Sequence[Ablation | Missing]:
    """Time each component without passes, with each alone and with all, in turns.

    Args:
        place: Where.
        case: One of this library's own.
    """
    name = f"passes of {case}"
    place.show(name)
    try:
        with place.start(case) as child:
            child.open(place.describe_task(case))
            trials = child.ask("ablate")["trials"]
    except ChildError as error:
        return [Missing(case=name, reason=str(error))]
    except KeyboardInterrupt:
        return [Missing(case=name, reason=INTERRUPTED)]
    return [
        Ablation(
            case=case,
            component=trial["component"],
            passes=trial["passes"],
            relative_error=trial["error"],
            before=tuple(trial["before"]),
            after=tuple(trial["after"]),
        )
        for trial in trials
    ]
