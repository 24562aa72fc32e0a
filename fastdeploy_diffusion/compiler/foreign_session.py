"""The stand-in for a build for another machine: a signature, and a reason not to run."""

from collections.abc import Mapping

import numpy as np

from fastdeploy_diffusion.errors import EngineUnavailableError
from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.session import Session


class ForeignSession(Session):
    """A program that was built here and runs elsewhere."""

    def __init__(self, engine: str, program: Program, target: str, reason: str) -> None:
        super().__init__(engine, program)
        self._target = target
        self._reason = reason

    def _run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        raise EngineUnavailableError(
            f"{self._component} is built for {self._target} and does not run here: {self._reason}",
            fix=f"run it on a machine with such a GPU, or leave out target={self._target!r}",
        )

    def _close(self) -> None:
        pass  # Nothing was loaded.
