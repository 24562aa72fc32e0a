"""Times our case and a peer's in turns, both loaded at the same time."""

from fastdeploy_diffusion.benchmark.case import Case
from fastdeploy_diffusion.benchmark.child_process import ChildError
from fastdeploy_diffusion.benchmark.result import INTERRUPTED, Comparison, Missing
from fastdeploy_diffusion.benchmark.row import Row
from fastdeploy_diffusion.benchmark.summary import summarise
from fastdeploy_diffusion.benchmark.workplace import Workplace


def choose_pairs(rows: list[Row]) -> list[tuple[Case, Case]]:
    """Set against each peer's case our fastest one of the same work and precision.

    Where we have none in that precision, our fastest of all: the quality beside it tells what it
    cost.
    """
    pairs = []
    for theirs in rows:
        if theirs.case.is_own or not theirs.samples.pictures:
            continue
        ours = [
            row
            for row in rows
            if row.case.is_own and row.case.work == theirs.case.work and row.samples.pictures
        ]
        same = [row for row in ours if row.case.precision == theirs.case.precision]
        if fastest := sorted(same or ours, key=lambda row: summarise(row.samples.pictures).p50):
            pairs.append((fastest[0].case, theirs.case))
    return pairs


def take_turns(place: Workplace, ours: Case, theirs: Case) -> Comparison | Missing:
    """Draw A B, B A, A B … after a picture each that is not timed.

    Two processes that wait for each other do not disturb each other; both keep their memory.
    """
    seconds: dict[Case, list[float]] = {ours: [], theirs: []}
    name = f"{ours.name} and {theirs.name} in turns, {ours.work}"
    reason = ""
    try:
        with place.start(ours) as first, place.start(theirs) as second:
            order = [(ours, first), (theirs, second)]
            place.show(f"{name}: loading")
            for case, child in order:
                child.open(place.describe_task(case))
            for turn in range(place.plan.runs + 1):
                place.show(f"{name}: turn {turn} of {place.plan.runs}")
                for case, child in order:
                    work = case.work
                    answer = child.draw([work.prompt] * work.batch, work.seeds, work.steps)
                    if turn:
                        seconds[case].append(answer["seconds"])
                order.reverse()
    except ChildError as error:
        reason = str(error)
    except KeyboardInterrupt:
        reason = INTERRUPTED
    pairs = min(map(len, seconds.values()))
    if not pairs:
        return Missing(case=name, reason=reason)
    return Comparison(
        ours=ours,
        theirs=theirs,
        ours_seconds=tuple(seconds[ours][:pairs]),
        theirs_seconds=tuple(seconds[theirs][:pairs]),
        missing=reason,
    )
