"""One network of a pipeline, on the engine that runs it."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from fastdeploy_diffusion.config import EngineChoice
from fastdeploy_diffusion.device import parse_device
from fastdeploy_diffusion.engines import accuracy
from fastdeploy_diffusion.engines.cache import ArtifactCache, CacheWarning
from fastdeploy_diffusion.engines.cache_entry import CacheKey
from fastdeploy_diffusion.engines.cache_key import make_plan_key
from fastdeploy_diffusion.engines.placement import (
    AUTO,
    AUTO_ORDER,
    Placement,
    replace_engine,
    select_engine,
)
from fastdeploy_diffusion.engines.plan import ComponentPlan, find_plan, keep_plan
from fastdeploy_diffusion.engines.registry import create_engine, engine_names
from fastdeploy_diffusion.engines.session import Session
from fastdeploy_diffusion.errors import (
    CacheError,
    ConfigError,
    EngineError,
    PassError,
    ResourceError,
)
from fastdeploy_diffusion.out_of_memory import tells_of_memory
from fastdeploy_diffusion.passes.by_size import keep_paying, keep_usable
from fastdeploy_diffusion.passes.graph_pass import GraphPass
from fastdeploy_diffusion.passes.registry import choose_passes
from fastdeploy_diffusion.passes.user_passes import PassWarning
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.predictors.build import BuiltSession, ComponentBuild
from fastdeploy_diffusion.predictors.memory_need import (
    StageNeed,
    hold_activations,
)
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.predictors.pass_blame import find_guilty_pass
from fastdeploy_diffusion.predictors.precision_guard import PRECISION_ERRORS, PrecisionGuard
from fastdeploy_diffusion.predictors.recovering_session import RecoveringSession, Running
from fastdeploy_diffusion.predictors.reference import Reference
from fastdeploy_diffusion.predictors.session_pool import SessionPool
from fastdeploy_diffusion.predictors.tuning import tune_component
from fastdeploy_diffusion.program import Program, Signature, fill_shapes

if TYPE_CHECKING:
    from fastdeploy_diffusion.predictors.part import Part


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
        measured_seconds: Of one run, when `tune` measured it; ``None`` without a plan.
        passed_over: With ``engine="auto"``, why other engines were not taken, by name.
        installable: Engines that ``auto`` tries before this one and that are not installed: the
            command that installs each, by name.
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
    measured_seconds: float | None = None
    target: str | None = None
    unchecked: str | None = None
    passed_over: Mapping[str, str] = field(default_factory=dict)
    installable: Mapping[str, str] = field(default_factory=dict)
    passes: Mapping[str, int] = field(default_factory=dict)


class Component:
    """A network that builds itself for the sizes that it is asked to run, and proves each build.

    Another signature is another build. The batch is always free; height and width are if the
    signature gives ranges.

    Args:
        name: Name for errors and reports.
        choice: Engine, device and precision asked for.
        cpu_fallback: Whether the CPU may take the place of what cannot run here.
        network: The network and its weights.
        passes: Names of the passes; ``None`` for those that pay on the engine.
        cache: Where builds are kept; ``None`` for nowhere.
        generators: How to draw the inputs of the check that are not standard normal.
        rows: How many rows of a batch one picture takes.
        build_class: How it is built.

    Attributes:
        report: Of the session lent last; of what is chosen, before there is one.
        pool: Its sessions.

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
        generators: Mapping[str, accuracy.Generator],
        rows: int = 1,
        build_class: type[ComponentBuild] = ComponentBuild,
    ) -> None:
        self.name = name
        self._build_class = build_class
        self._network = network
        self._cache = cache
        self._generators = generators
        self._rows = rows
        self._choice = choice
        self._cpu_fallback = cpu_fallback
        self._pass_names = passes
        self._guard = PrecisionGuard(name, network.model, choice.pinned_by, cache, self._plan_key)
        self.pool = SessionPool(
            self._make,
            self._measure,
            lambda session: session.running.placement is self._placement,
        )
        self._place()

    def estimate(self, part: Part, rows: int) -> StageNeed:
        """Estimate what a run takes of the memory of the CPU, whether it is built or not.

        Args:
            part: What it is asked for.
            rows: Of the batch.
        """
        return self._estimate(part.signature, {**part.sizes, "batch": rows})

    def plan(
        self, signature: Signature, sizes: Mapping[str, int] = MappingProxyType({})
    ) -> ComponentBuild:
        """Say what is built for a signature, without building it.

        Args:
            signature: Inputs and outputs.
            sizes: Of a picture, for the ranges of the signature, by their names; those that an
                engine tunes for where left out.
        """
        passes = keep_paying(self._passes, signature) if self._is_default else self._passes
        return self._build_class(
            self.name,
            self._placement,
            self._network,
            Reference(self.name, self._network, signature),
            keep_usable(passes, signature),
            self._generators,
            *signature,
            sizes={"batch": self._rows, **sizes},
        )

    @contextmanager
    def lend(self, signature: Signature, *, keep: bool = False) -> Generator[Session, None, None]:
        """Give the session for a signature until the block ends, built now if it is not there yet.

        Args:
            signature: Inputs and outputs.
            keep: Whether it may stay after the last block for the next one with this signature.

        Raises:
            PassError: A pass fails, or changes the numbers.
            AccuracyError: The engine's results differ from the layer's.
            EngineError: The build failed.
        """
        with ExitStack() as lent:
            with self.pool.making:
                session = lent.enter_context(self.pool.lend(signature, keep=keep))
                self.report = session.running.report
            yield session

    def check_weights(self) -> None:
        """Refuse weights that are not the network's, before anything is built of them.

        Raises:
            CheckpointError: Lists what is missing, unexpected or of another shape.
        """
        self._network.check()

    def close(self) -> None:
        """Free the engine's memory, also where requests still run, which fail; the next builds."""
        self.pool.close()

    @property
    def keeps_rows_apart(self) -> bool:
        """Whether a row of a batch does not depend on the others, as far as it was tried."""
        spec = self._placement.spec
        return self._placement.engine.keeps_rows_apart and spec.device.kind == "cpu"

    def describe_placement(self) -> str:
        """Say what it runs on now, in all that its numbers may depend on."""
        placement = self._placement
        passes = ", ".join(each.name for each in self._passes)
        return f"{placement.engine.name} {placement.spec!r} {passes}"

    def identify(self, signature: Signature) -> str:
        """Give the digest of all that the numbers of its build depend on.

        Raises:
            CacheError: There is no cache, or the device cannot be identified.
        """
        if self._cache is None:
            raise CacheError(f"{self.name}: builds are not kept", fix="remove cache=False")
        return self.plan(signature).identify(self._cache.root)

    def tune(
        self,
        signature: Signature,
        *,
        runs: int,
        sizes: Mapping[str, int],
        show: Callable[[str], None],
    ) -> ComponentPlan:
        """Measure every way to run this component, keep what was found, and go by it.

        Args:
            signature: What it is measured for.
            runs: How many runs are timed.
            sizes: As for `plan`.
            show: Told of each way before it is tried.

        A plan that cannot be kept is a `CacheWarning`: this component alone goes by it.

        Raises:
            ConfigError: There is no cache to keep the plan in.
        """
        if self._cache is None:
            raise ConfigError("tune keeps its plan in the cache, and cache is false")
        self.close()  # frees the memory for the builds to come
        with self.pool.making:
            plan = tune_component(
                self.plan(signature, sizes),
                parse_device(self._choice.device),
                passes=self._pass_names,
                cache=self._cache,
                runs=runs,
                show=show,
            )
            try:
                key = self._plan_key(self._cache)
                plan = keep_plan(self._cache, key, plan, self._network.model)
            except CacheError as error:
                message = f"{self.name}: what was measured is not kept: {error.in_one_line}"
                warnings.warn(message, CacheWarning, stacklevel=2)
            self._place(plan)
            self.pool.drop_idle()  # built meanwhile, for another placement
            return plan

    def _make(self, signature: Signature) -> RecoveringSession:
        return RecoveringSession(
            Program(self.name, None, *signature),
            self._build(signature),
            lambda error, failed: self._recover(error, failed, signature),
        )

    def _estimate(self, signature: Signature, sizes: Mapping[str, int]) -> StageNeed:
        spec, network = self._placement.spec, self._network
        if spec.device.kind != "cpu":
            return StageNeed()
        counted = network.count_activations(fill_shapes(signature.inputs, sizes))
        return StageNeed(
            network.count_weights() * PRECISIONS[spec.precision].weight_bytes,
            hold_activations(self._placement.engine.name, spec.precision, counted),
        )

    def _measure(self, signature: Signature) -> float:
        """Estimate the bytes that a session takes for one picture, where that can be told."""
        if self._placement.spec.device.kind != "cpu":
            return math.inf
        need = self._estimate(signature, {"batch": self._rows})
        return need.weights + need.activations

    def _place(self, measured: ComponentPlan | None = None) -> None:
        """Choose engine, precision and passes: under ``auto``, what a plan found fastest.

        Args:
            measured: The plan; ``None`` for the one that is kept.
        """
        choice, device = self._choice, parse_device(self._choice.device)
        select = partial(
            select_engine,
            device=device,
            cpu_fallback=self._cpu_fallback,
            threads=choice.threads,
            target=choice.target,
            options=choice.options,
        )
        # Nothing is known to be right in half precision before it was measured.
        unmeasured = "fp32" if choice.precision == AUTO else choice.precision
        placement = select(choice.engine, precision=unmeasured)
        installable = placement.installable
        is_open = AUTO in (choice.engine, choice.precision)
        # An engine that cannot run here, and has a fallback, has no plan.
        is_planned = (is_open or self._guard.is_needed(placement)) and not placement.fallback
        plan = (measured or self.find_plan()) if is_planned else None
        taken = None
        if plan and is_open:
            # A plan may be of the same network as a whole, which other engines run, too.
            ways = tuple(each for each in plan.candidates if self._build_class.runs_on(each.engine))
            usable = replace(plan, candidates=ways)
            taken = usable.choose(choice.precision, self._pass_names, engine=choice.engine)
        if taken:
            placement = select(taken.engine, precision=taken.precision)
        placement = self._guard.avoid(placement, plan)
        names = taken.passes if taken else self._pass_names
        self._is_default = names is None
        if names is None:
            names = self._build_class.name_default_passes(
                placement.engine.name, placement.spec.precision
            )
        self._placement = placement
        self._passes = tuple(choose_passes(names, placement.engine.name, placement.spec.precision))
        if self._pass_names is not None:
            self._warn_of_idle_passes()
        spec = placement.spec
        self.report = ComponentReport(
            self.name,
            placement.engine.name,
            str(spec.device),
            spec.precision,
            placement.fallback,
            PRECISIONS[spec.precision].tolerance,
            target=spec.target,
            passed_over=plan.explain(taken, choice.precision)
            if plan and taken
            else placement.passed_over,
            installable=installable,
            measured_seconds=taken.seconds if taken else None,
        )

    def _warn_of_idle_passes(self) -> None:
        """Say so where passes that somebody asked for have nothing to work on."""
        engine = self._placement.engine
        idle = [each.name for each in self._passes if isinstance(each, GraphPass)]
        if idle and engine.dialect is None:
            message = (
                f"{self.name}: {engine.name} reads no ONNX graph to apply {', '.join(idle)} to"
            )
            warnings.warn(message, PassWarning, stacklevel=2)

    def find_plan(self) -> ComponentPlan | None:
        """Give what `tune` has found; ``None`` if it was not tuned here."""
        if self._cache is None:
            return None
        try:
            return find_plan(self._cache, self._plan_key(self._cache))
        except CacheError as error:
            message = f"{self.name}: cannot read the tuning plan: {error.in_one_line}"
            warnings.warn(message, CacheWarning, stacklevel=2)
            return None

    def _recover(self, error: EngineError, failed: Running, signature: Signature) -> Running | None:
        """Build what takes the place of an engine that failed, and say so."""
        with self.pool.making:
            if tells_of_memory(error) and self.pool.make_room():
                return failed  # with more memory
            # Another session may have failed before, of another size that is in use as well.
            if failed.placement is self._placement:
                instead = self._find_retreat(error)
                if instead is None:
                    return None
                self._move(instead)
            # Its memory first: it may be the lack of it that failed.
            failed.session.close()
            return self._build(signature)

    def _find_retreat(self, error: EngineError) -> Placement | None:
        placement = self._guard.retreat(self._placement, error)
        # A build for another machine cannot fall back to an engine here.
        if placement is None and self._cpu_fallback and self._placement.spec.target is None:
            placement = replace_engine(self._placement, error.problem)
            if placement is not None:
                self._passes = ()
        return placement

    def _move(self, placement: Placement) -> None:
        """Go on with another placement than the one that was chosen."""
        self._placement, spec = placement, placement.spec
        self.report = replace(
            self.report,
            engine=placement.engine.name,
            device=str(spec.device),
            precision=spec.precision,
            fallback=placement.fallback,
            tolerance=PRECISIONS[spec.precision].tolerance,
            measured_seconds=None,
        )
        self.pool.drop_idle()  # built for what it was before

    def _plan_key(self, cache: ArtifactCache) -> CacheKey:
        device = parse_device(self._choice.device)
        names = set(AUTO_ORDER[device.kind]) & set(engine_names())
        engines = [create_engine(name) for name in sorted(names)]
        code = ("fastdeploy_diffusion.predictors.tuning", *self._network.modules)
        return make_plan_key(engines, device, self.name, self._network.identify(cache.root), code)

    def _build(self, signature: Signature) -> Running:
        started = time.perf_counter()
        built = self._open(signature)
        self.report = replace(
            self.report,
            relative_error=built.relative_error,
            build_seconds=time.perf_counter() - started,
            cached=built.cached,
            unchecked=built.unchecked,
            passes=built.passes,
        )
        return Running(built.session, self._placement, self.report)

    def _open(self, signature: Signature) -> BuiltSession:
        """Build in the precision that was chosen, or in the first safer one that is right."""
        build = self.plan(signature)
        try:
            return build.open(self._cache)
        except (PassError, ResourceError):
            raise
        except Exception as error:
            if tells_of_memory(error):
                raise  # which says nothing of precision or passes
            safer = None
            if isinstance(error, PRECISION_ERRORS):
                safer = self._guard.retreat(self._placement, error)
            if safer is None:
                if guilty := find_guilty_pass(build):
                    raise guilty from error
                raise
        self._move(safer)
        return self._open(signature)


def spread(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Timesteps for the check: anywhere in the usual thousand."""
    return random.integers(0, 1000, shape)
