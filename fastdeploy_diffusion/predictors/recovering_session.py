"""A session whose engine may fail in the middle of a generation, and another takes its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from fastdeploy_diffusion.engines.session import OperatorTime, Session
from fastdeploy_diffusion.engines.value_range import is_in_range
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.program import Program

T = TypeVar("T")


class RecoveringSession(Session):
    """Repeats a run that failed on what ``recover`` gives, from the same inputs, until one runs.

    Args:
        program: The signature.
        session: What runs as long as it can.
        recover: Closes a session that failed with an error, and gives one in a safer precision or
            on the fallback; leaves it as it is and gives ``None`` where there is neither.
    """

    def __init__(
        self,
        program: Program,
        session: Session,
        recover: Callable[[EngineError, Session], Session | None],
    ) -> None:
        super().__init__(session.engine, program)
        self._session = session
        self._recover = recover

    def precompute(self, **inputs: np.ndarray) -> None:
        """Let the session compute ahead; raises as ``run``."""
        with self._lock:
            self._require_open()
            self._repeat(lambda session: session.precompute(**inputs), inputs)

    def _run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return self._repeat(lambda session: session.run(**feeds), feeds)

    def _profile(self, feeds: Mapping[str, np.ndarray]) -> Sequence[OperatorTime]:
        return self._session.profile(**feeds)

    def _repeat(self, task: Callable[[Session], T], feeds: Mapping[str, np.ndarray]) -> T:
        while True:
            try:
                return task(self._session)
            except EngineError as error:
                # No engine makes numbers of what is none, or of what is far too large.
                if not all(map(is_in_range, feeds.values())):
                    raise
                self._replace(error)

    def _replace(self, error: EngineError) -> None:
        instead = self._recover(error, self._session)
        if instead is None:
            raise error
        self._session = instead
        self.engine = instead.engine

    def _close(self) -> None:
        self._session.close()
