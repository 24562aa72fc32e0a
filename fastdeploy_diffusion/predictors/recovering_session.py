"""A session that falls back to another engine if its own fails in the middle of a generation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from fastdeploy_diffusion.adapters.adaptation import Adaptation
from fastdeploy_diffusion.engines.placement import Placement
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.predictors.component import ComponentReport, Interceptor
from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.session import (
    TIMESTEP,
    Arrays,
    Handle,
    OperatorTime,
    Row,
    Session,
    stack_arrays,
)
from fastdeploy_diffusion.runtime.value_range import is_in_range

T = TypeVar("T")


class Running(NamedTuple):
    """An engine's session, its placement and report, and the adapters in its weights."""

    session: Session
    placement: Placement
    report: ComponentReport
    adaptation: Adaptation | None = None


@dataclass(frozen=True, eq=False)
class _RepeatableHandle(Handle):
    """A handle with the arrays to condition another session."""

    arrays: Arrays


class RecoveringSession(Session):
    """Repeats a failed run, from the same inputs, on the sessions of ``recover``, until one runs.

    Args:
        recover: Closes the failed session, and returns one in a safer precision or on the
            fallback; or returns the failed one, if it may work now; or leaves it open and returns
            ``None``, if nothing helps.
        find_interceptor: Finds what is called in place of each run, if anything is.
    """

    def __init__(
        self,
        program: Program,
        running: Running,
        recover: Callable[[EngineError, Running], Running | None],
        find_interceptor: Callable[[], Interceptor | None] = lambda: None,
    ) -> None:
        super().__init__(running.session.engine, program)
        self.running = running
        self._recover, self._find_interceptor = recover, find_interceptor
        self._handles: WeakKeyDictionary[Handle, Handle] = WeakKeyDictionary()

    def _condition(self, arrays: Arrays, timesteps: Sequence[float]) -> Handle:
        copies = {name: array.copy() for name, array in arrays.items()}
        handle = _RepeatableHandle(self, frozenset(timesteps), copies)
        self._repeat(lambda session: self._translate(handle, session), list(copies.values()))
        return handle

    def _run_rows(self, rows: Sequence[Row]) -> Arrays:
        def run(session: Session) -> Arrays:
            translated = [row._replace(handle=self._translate(row.handle, session)) for row in rows]
            return session.run_all(translated)

        given = [[*_get_arrays(row.handle).values(), *row.residuals.values()] for row in rows]
        feeds = [*(row.sample for row in rows), *chain(*given)]
        if intercept := self._find_interceptor():
            return intercept(self._join(rows), lambda: self._repeat(run, feeds))
        return self._repeat(run, feeds)

    def _translate(self, handle: Handle, session: Session) -> Handle:
        """Look up or make the handle of the present session, which may be a fallback."""
        if handle not in self._handles:
            inner = session.condition(_get_arrays(handle), sorted(handle.timesteps))
            self._handles[handle] = inner
        return self._handles[handle]

    def _join(self, rows: Sequence[Row]) -> Arrays:
        """Join rows to the inputs of a run."""
        given = [_get_arrays(row.handle) for row in rows]
        timesteps = np.array([row.timestep for row in rows], np.float32)
        shared = stack_arrays(self._component, self._list_conditions(), given)
        return {**self._stack_samples(rows), TIMESTEP: timesteps, **shared}

    def _compile(self, sizes: Mapping[str, int]) -> None:
        self.running.session.compile(sizes)

    def _run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        def run() -> Arrays:
            return self._repeat(lambda session: session.run(**feeds), list(feeds.values()))

        intercept = self._find_interceptor()
        return intercept(feeds, run) if intercept else run()

    def _profile(self, feeds: Mapping[str, np.ndarray]) -> Sequence[OperatorTime]:
        return self.running.session.profile(**feeds)

    def _repeat(self, task: Callable[[Session], T], feeds: Sequence[np.ndarray]) -> T:
        while True:
            try:
                return task(self.running.session)
            except EngineError as error:
                # NaN, infinite or far too large inputs are at fault, not the engine.
                if not all(map(is_in_range, feeds)):
                    raise
                self._replace(error)

    def _replace(self, error: EngineError) -> None:
        instead = self._recover(error, self.running)
        if instead is None:
            raise error
        self.running = instead
        self._handles.clear()
        self.engine = instead.session.engine

    def _close(self) -> None:
        self.running.session.close()


def _get_arrays(handle: Handle) -> Arrays:
    assert isinstance(handle, _RepeatableHandle)  # no other is given away
    return handle.arrays
