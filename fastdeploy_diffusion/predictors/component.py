"""One network of a pipeline, on the engine that runs it."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fastdeploy_diffusion.config import EngineChoice
from fastdeploy_diffusion.device import parse_device
from fastdeploy_diffusion.engines.accuracy import TOLERANCES, Generator
from fastdeploy_diffusion.engines.cache import ArtifactCache
from fastdeploy_diffusion.engines.placement import select_engine
from fastdeploy_diffusion.engines.session import Session
from fastdeploy_diffusion.passes.registry import choose_passes
from fastdeploy_diffusion.predictors.build import ComponentBuild
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.program import TensorSpec


@dataclass(frozen=True)
class ComponentReport:
    """What a component really runs on, and the proof that it is right.

    Args:
        name: The component.
        engine: The engine that runs it.
        device: The device it runs on.
        precision: The precision it runs in.
        fallback: Why this is not what was asked for; ``None`` if it is.
        relative_error: Largest difference from the Paddle float32 layer, relative to the layer's
            largest output; ``None`` until the component is built, and where it is `unchecked`.
        tolerance: What was allowed.
        build_seconds: Until the component was ready, in seconds.
        passed_over: With ``engine="auto"``, why faster engines were not taken, by name.
        passes: How many places each pass rewrote, by name; as many as the model's config promises.
        cached: Whether a kept build was loaded; its error was measured when it was built.
        target: The GPU architecture that it is built for; ``None`` for the device itself.
        unchecked: Why the build was not compared with the layer: it cannot run here.
    """

    name: str
    engine: str
    device: str
    precision: str
    fallback: str | None
    tolerance: float
    relative_error: float | None = None
    build_seconds: float | None = None
    cached: bool = False
    target: str | None = None
    unchecked: str | None = None
    passed_over: Mapping[str, str] = field(default_factory=dict)
    passes: Mapping[str, int] = field(default_factory=dict)


class Component:
    """A network that builds itself for the sizes that it is asked to run, and proves each build.

    The batch is always free; another height or width is another build, which replaces the last.

    Args:
        name: Name for errors and reports.
        choice: Engine, device and precision asked for.
        cpu_fallback: Whether the CPU may take the place of what cannot run here.
        network: The network and its weights.
        passes: Names of the passes; ``None`` for those that pay on the engine.
        cache: Where builds are kept; ``None`` for nowhere.
        generators: How to draw the inputs of the check that are not standard normal.

    Raises:
        EngineUnavailableError: What was asked for cannot run here, and there is no fallback.
    """

    def __init__(
        self,
        name: str,
        choice: EngineChoice,
        *,
        cpu_fallback: bool,
        network: Network,
        passes: Sequence[str] | None,
        cache: ArtifactCache | None,
        generators: Mapping[str, Generator],
    ) -> None:
        self.name = name
        self._network = network
        self._cache = cache
        self._generators = generators
        self._placement = select_engine(
            choice.engine,
            parse_device(choice.device),
            choice.precision,
            cpu_fallback=cpu_fallback,
            threads=choice.threads,
            target=choice.target,
        )
        self._passes = tuple(choose_passes(passes, self._placement.engine.name))
        spec = self._placement.spec
        self.report = ComponentReport(
            name,
            self._placement.engine.name,
            str(spec.device),
            spec.precision,
            self._placement.fallback,
            TOLERANCES[spec.precision],
            target=spec.target,
            passed_over=self._placement.passed_over,
        )
        self._lock = threading.Lock()
        self._session: Session | None = None

    def prepare(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Session:
        """Give the session for these specs, built now if it is not there yet.

        Raises:
            AccuracyError: The engine's results differ from the layer's.
            EngineError: The build failed.
        """
        with self._lock:
            session = self._session
            if session is None or tuple(session.inputs.values()) != inputs:
                self._session = None  # frees the last build's memory before the next one's
                del session
                session = self._session = self._build(inputs, outputs)
            return session

    def close(self) -> None:
        """Free the engine's memory; the next request builds again."""
        with self._lock:
            if self._session is not None:
                self._session.close()
                self._session = None

    def _build(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Session:
        started = time.perf_counter()
        built = ComponentBuild(
            self.name,
            self._placement,
            self._network,
            self._passes,
            self._generators,
            inputs,
            outputs,
        ).open(self._cache)
        self.report = replace(
            self.report,
            relative_error=built.relative_error,
            build_seconds=time.perf_counter() - started,
            cached=built.cached,
            unchecked=built.unchecked,
            passes=built.passes,
        )
        return built.session


def spread(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Timesteps for the check: anywhere in the usual thousand."""
    return random.integers(0, 1000, shape)
