"""The residency of a request's components in memory: all at once, or one by one."""

import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType

from typing_extensions import Self

from fastdeploy_diffusion.predictors.component import Component, Part
from fastdeploy_diffusion.runtime.session import Session


class Residency(ABC):
    """Lends a request its sessions until its block ends; every request has its own.

    Attributes:
        seconds: Time spent on preparing components so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._borrowed = ExitStack()
        self._last_lap = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._borrowed.close()

    def lap(self) -> float:
        """Measure the seconds since the last lap, without the preparing of components."""
        now = time.perf_counter() - self.seconds
        seconds, self._last_lap = now - self._last_lap, now
        return seconds

    @abstractmethod
    def begin(self, parts: Iterable[Part]) -> None:
        """Prepare, before the first stage, the components that may stay; raises as ``lend``."""

    def compile_ahead(self, parts: Iterable[Part]) -> None:
        """Compile what may stay while stages before it run; drop errors, which the runs meet again.

        Args:
            parts: Their sizes are those that will run, ``"batch"`` among them.
        """
        return  # where components do not stay, there is nothing to compile ahead

    @abstractmethod
    def lend(self, part: Part) -> AbstractContextManager[Session]:
        """Lend a component's session for a stage.

        Raises:
            PassError: A pass fails, or changes the numbers.
            AccuracyError: The engine's results differ from the layer's.
            EngineError: The build failed.
        """


class Resident(Residency):
    """Components stay, for this request and the next: all of them are in memory at once.

    A request borrows its sessions as long as it lasts, so that another one of another size does not
    change or close them midway.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sessions: dict[Component, Session] = {}
        self._compiling: dict[Component, Future[None]] = {}

    def begin(self, parts: Iterable[Part]) -> None:
        """Prepare everything, so that failing builds are known before work begins."""
        started = time.perf_counter()
        for component, signature, _ in parts:
            lent = component.lend(signature, keep=True)
            self._sessions[component] = self._borrowed.enter_context(lent)
        self.seconds += time.perf_counter() - started

    def compile_ahead(self, parts: Iterable[Part]) -> None:
        """Compile each in a thread of its own, which ends before the sessions are given back."""
        threads = self._borrowed.enter_context(ThreadPoolExecutor(thread_name_prefix="compile"))
        for component, _, sizes in parts:
            compiled = threads.submit(self._sessions[component].compile, sizes)
            self._compiling[component] = compiled

    @contextmanager
    def lend(self, part: Part) -> Generator[Session, None, None]:
        """Lend the prepared session, when it is compiled."""
        if part.component not in self._sessions:
            self.begin([part])
        if compiling := self._compiling.pop(part.component, None):
            started = time.perf_counter()
            compiling.exception()  # the run may recover from it
            self.seconds += time.perf_counter() - started
        yield self._sessions[part.component]


class Staged(Residency):
    """A component is in memory for its stage alone: the next one comes when it has gone.

    A stage that fails or is abandoned closes its session, too. Requests that run at the same time
    hold one component each, and share it where they are in the same stage.
    """

    def begin(self, parts: Iterable[Part]) -> None:
        """Prepare nothing: stages do."""

    @contextmanager
    def lend(self, part: Part) -> Generator[Session, None, None]:
        """Load the component, and close it with the stage."""
        with ExitStack() as stage:
            started = time.perf_counter()
            session = stage.enter_context(part.component.lend(part.signature))
            self.seconds += time.perf_counter() - started
            yield session


RESIDENCIES: Mapping[str, type[Residency]] = {
    "resident": Resident,
    "staged": Staged,
    "streamed": Staged,
}
"""By the values of the option ``memory``."""
