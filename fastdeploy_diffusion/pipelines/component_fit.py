"""Checks that the components of a checkpoint fit: the width of an output is that of its input."""

from pathlib import Path
from typing import NamedTuple

from fastdeploy_diffusion.errors import UnsupportedModelError


class Joint(NamedTuple):
    """An output of one component that is the input of another.

    Args:
        giver: The first component, with the verb: ``"text_encoder gives"``.
        unit: Of the widths: ``"numbers a token"``.
        wanted: The width that it takes; ``None`` if it takes no such input.
        key: The option of its config with that width.
    """

    giver: str
    given: int
    unit: str
    taker: str
    wanted: int | None
    key: str


def check_fit(path: Path, *joints: Joint) -> None:
    """Refuse components that were not trained together, by the first numbers that do not match.

    Raises:
        UnsupportedModelError: Names both components and both numbers.
    """
    for joint in joints:
        if joint.given != joint.wanted:
            wanted = "none" if joint.wanted is None else joint.wanted
            raise UnsupportedModelError(
                f"{path}: {joint.giver} {joint.given} {joint.unit}, and {joint.taker} wants "
                f"{wanted} ({joint.key}): they are not of one model",
                fix="use the components of one text-to-image checkpoint",
            )
