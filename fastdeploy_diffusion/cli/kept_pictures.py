"""Pictures of an earlier run: whether a file is what a request would draw now."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.images import read_metadata
from fastdeploy_diffusion.shown import show

# Of a run: names, and what may differ from machine to machine for the same picture.
_UNCOMPARED = ("model", "memory", "embeddings", "components", "refiner")


class KeptPicture:
    """The metadata of a file, beside those that a request's first picture would have.

    Args:
        expected: As `DiffusionPredictor.describe_picture`.

    Attributes:
        seed: The seed that it was drawn from; ``None`` if there is none.
        difference: Why the file is not the expected picture: the first setting that differs, other
            than the seed, or a problem of its metadata; empty if it is that picture.
    """

    def __init__(self, file: Path, expected: Mapping[str, Any]) -> None:
        self.seed: int | None = None
        try:
            found = read_metadata(file)
        except RequestError as error:
            self.difference = error.problem
            return
        self.seed = found["settings"].get("seed")
        wanted = json.loads(json.dumps(expected))  # lists in place of tuples, as in the file
        own, its = _collect(wanted), _collect(found)
        for name, part in found["run"].get("components", {}).items():
            if part.get("fallback") is not None:  # its precision was not the one asked for
                own.pop(f"precision of {name}", None)
                its.pop(f"precision of {name}", None)
        different = (
            f"its {name} is {_show(its.get(name))}, and would be {_show(own.get(name))}"
            for name in dict.fromkeys((*own, *its))
            if name != "seed" and own.get(name) != its.get(name)
        )
        self.difference = next(different, "")


def _collect(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """List what a picture depends on, without what depends on the machine."""
    run, refiner = metadata["run"], metadata["run"].get("refiner", {})
    precisions = {
        f"precision of {name}": part.get("precision")
        for name, part in run.get("components", {}).items()
    }
    own = {name: each for name, each in run.items() if name not in _UNCOMPARED}
    refined = {"refiner's model_digest": refiner.get("model_digest")}
    return {**metadata["settings"], **precisions, **own, **refined}


def _show(value: Any) -> str:
    return "left out" if value is None else show(value)
