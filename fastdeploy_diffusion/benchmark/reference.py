"""The pictures that all others are compared with."""

import numpy as np

from fastdeploy_diffusion.benchmark.case import OWN, Case
from fastdeploy_diffusion.benchmark.plan import REFERENCE, describe_reference
from fastdeploy_diffusion.benchmark.quality import Pictures
from fastdeploy_diffusion.benchmark.workplace import Workplace


def draw_reference(place: Workplace, case: Case) -> Pictures:
    """Draw a case's work with the Paddle layers in float32.

    Raises:
        ChildError: It failed.
    """
    choice = {name: REFERENCE[name] for name in ("engine", "precision", "device")}
    reference = case.model_copy(update={**choice, "painter": OWN})
    task = place.describe_task(reference)
    threads = {"threads": case.work.threads}
    task["config"] = describe_reference(place.plan.config) | threads
    with place.start(reference) as child:
        child.open(task)
        work, file = case.work, place.folder / "reference.npy"
        child.draw([work.prompt] * work.batch, work.seeds, work.steps, file)
    pictures: Pictures = np.load(file)
    return pictures
