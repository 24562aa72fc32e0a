"""The pictures that all others are compared with."""

import numpy as np

from fastdeploy_diffusion.benchmark.case import OWN, Case
from fastdeploy_diffusion.benchmark.quality import Pictures
from fastdeploy_diffusion.benchmark.workplace import Workplace
from fastdeploy_diffusion.config.diffusion_config import COMPONENTS

REFERENCE_ENGINE = "paddle-eager"  # the layers themselves, without passes


def draw_reference(place: Workplace, case: Case) -> Pictures:
    """Draw a case's work with the Paddle layers in float32.

    Raises:
        ChildError: It failed.
    """
    update = {"engine": REFERENCE_ENGINE, "precision": "fp32", "device": "cpu"}
    reference = case.model_copy(update={**update, "painter": OWN})
    task = place.describe_task(reference)
    task["config"] |= {"passes": [], "cache": False, "device": "cpu", "target": None}
    for component in COMPONENTS:  # whose own choice of an engine is no reference
        task["config"].pop(component, None)
    with place.start(reference) as child:
        child.open(task)
        work, file = case.work, place.folder / "reference.npy"
        child.draw([work.prompt] * work.batch, work.seeds, work.steps, file)
    pictures: Pictures = np.load(file)
    return pictures
