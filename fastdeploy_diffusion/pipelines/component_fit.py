"""Whether the components of a checkpoint are of one model: what one gives, the next must take."""

from pathlib import Path
from typing import NamedTuple

from fastdeploy_diffusion.errors import UnsupportedModelError


class Joint(NamedTuple):
    """Where the output of one component goes into another.

    Args:
        giver: Who gives it, with the verb: ``"text_encoder gives"``.
        given: How many numbers.
        unit: What they are: ``"numbers a token"``.
        taker: Who takes it.
        wanted: How many numbers the taker wants; None for none.
        key: The option of its config that says so.
    """

    giver: str
    given: int
    unit: str
    taker: str
    wanted: int | None
    key: str


def check_fit(path: Path, *joints: Joint) -> None:
    """Refuse components that were not trained together, by the first numbers that do not match.

    Args:
        path: The checkpoint.
        joints: All that must match.

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
