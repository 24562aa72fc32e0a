"""The parts of a run, and their results so far."""

from collections.abc import Callable
from dataclasses import dataclass, field

from fastdeploy_diffusion.benchmark.case import Work
from fastdeploy_diffusion.benchmark.child_process import ChildError
from fastdeploy_diffusion.benchmark.fastest import ablate, choose_fastest, measure_roofline
from fastdeploy_diffusion.benchmark.measure import draw_reference, measure_case
from fastdeploy_diffusion.benchmark.plan import REFERENCE
from fastdeploy_diffusion.benchmark.result import INTERRUPTED, Ablation, Comparison, Missing
from fastdeploy_diffusion.benchmark.roofline.roofline import Roofline
from fastdeploy_diffusion.benchmark.row import Row
from fastdeploy_diffusion.benchmark.take_turns import choose_pairs, take_turns
from fastdeploy_diffusion.benchmark.workplace import Workplace
from fastdeploy_diffusion.picture_quality import Pictures


@dataclass
class Findings:
    """Results so far."""

    rows: list[Row] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    ablations: list[Ablation] = field(default_factory=list)
    rooflines: list[Roofline] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)

    def keep(self, found: Row | Comparison | Ablation | Roofline | Missing) -> None:
        """Keep a result.

        Raises:
            KeyboardInterrupt: Ctrl-C cut it short; the run is over.
        """
        reason = ""
        if isinstance(found, Row):
            self.rows.append(found)
            reason = found.missing
        elif isinstance(found, Comparison):
            self.comparisons.append(found)
            reason = found.missing
        elif isinstance(found, Ablation):
            self.ablations.append(found)
        elif isinstance(found, Roofline):
            self.rooflines.append(found)
        else:
            self.missing.append(found)
            reason = found.reason
        if reason == INTERRUPTED:
            raise KeyboardInterrupt


def measure_all(place: Workplace, findings: Findings) -> None:
    """Do one part of a run after the other; after Ctrl-C, list what is missing."""
    plan = place.plan
    parts: dict[str, Callable[[Workplace, Findings], None]] = {"": _measure_cases}
    if plan.peers:
        parts["turns with peers"] = _compare
    if plan.sweep is None:  # a sweep asks how cost grows, and has many pieces of work
        parts["distance from the limit"] = _survey
    if plan.ablation:
        parts["passes"] = _ablate
    names = list(parts)
    try:
        while names:
            parts[names[0]](place, findings)
            del names[0]
    except KeyboardInterrupt:
        known = {"", *(str(row.case) for row in findings.rows)}
        known |= {each.case for each in findings.missing}
        rest = [each for each in (*map(str, plan.cases), *names) if each not in known]
        findings.missing += [Missing(case=each, reason=INTERRUPTED) for each in rest]


def _measure_cases(place: Workplace, findings: Findings) -> None:
    references: dict[Work, Pictures | str] = {}
    for case in place.plan.cases:
        picture = case.work.model_copy(update={"threads": 0})  # they change no picture
        if picture not in references:
            place.show(f"{REFERENCE['engine']} {REFERENCE['precision']}, {case.work}: reference")
            try:
                references[picture] = draw_reference(place, case)
            except ChildError as error:
                references[picture] = str(error)
        findings.keep(measure_case(place, case, references[picture]))


def _compare(place: Workplace, findings: Findings) -> None:
    for ours, theirs in choose_pairs(findings.rows):
        findings.keep(take_turns(place, ours, theirs))


def _survey(place: Workplace, findings: Findings) -> None:
    for case in choose_fastest(findings.rows):
        for each in measure_roofline(place, case):
            findings.keep(each)


def _ablate(place: Workplace, findings: Findings) -> None:
    for case in choose_fastest(findings.rows):
        for each in ablate(place, case):
            findings.keep(each)
