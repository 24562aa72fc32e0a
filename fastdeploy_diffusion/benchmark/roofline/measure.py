"""Measures the rooflines of our fastest cases, each in a process of its own."""

from collections.abc import Sequence

from fastdeploy_diffusion.benchmark.case import Case
from fastdeploy_diffusion.benchmark.child_process import ChildError
from fastdeploy_diffusion.benchmark.result import INTERRUPTED, Missing
from fastdeploy_diffusion.benchmark.roofline.roofline import Roofline
from fastdeploy_diffusion.benchmark.workplace import Workplace


def measure_roofline(place: Workplace, case: Case) -> Sequence[Roofline | Missing]:
    """Measure the engine's peaks, and how near each component comes to them.

    Args:
        place: Where.
        case: One of this library's own.
    """
    name = f"roofline of {case}"
    place.show(name)
    try:
        with place.start(case) as child:
            child.open(place.describe_task(case))
            surveys = child.ask("survey", batch=case.work.batch)["surveys"]
    except ChildError as error:
        return [Missing(case=name, reason=str(error))]
    except KeyboardInterrupt:
        return [Missing(case=name, reason=INTERRUPTED)]
    return [Roofline.model_validate({"case": case, **survey}) for survey in surveys]
