"""The placement of a component: engine, precision, passes, and their fallbacks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from fastdeploy_diffusion.compiler.build import ComponentBuild
from fastdeploy_diffusion.compiler.cache_key import make_plan_key
from fastdeploy_diffusion.compiler.native_passes import keep_compilable
from fastdeploy_diffusion.compiler.precision_guard import PrecisionGuard
from fastdeploy_diffusion.compiler.tuning import tune_component
from fastdeploy_diffusion.config import EngineChoice
from fastdeploy_diffusion.device import parse_device
from fastdeploy_diffusion.engines.placement import (
    AUTO,
    AUTO_ORDER,
    Placement,
    replace_engine,
    select_engine,
)
from fastdeploy_diffusion.engines.plan import (
    ComponentPlan,
    LeftOutPass,
    find_plan,
    keep_plan,
    remember_failures,
)
from fastdeploy_diffusion.engines.registry import create_engine, engine_names
from fastdeploy_diffusion.errors import AccuracyError, CacheError, EngineError, PassError
from fastdeploy_diffusion.native.library import explain_missing_compiler
from fastdeploy_diffusion.passes.by_size import keep_usable
from fastdeploy_diffusion.passes.contract import AnyPass, keep_changing
from fastdeploy_diffusion.passes.graph_pass import GraphPass
from fastdeploy_diffusion.passes.registry import find_passes
from fastdeploy_diffusion.passes.user_passes import PassWarning
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.predictors.component import ComponentReport
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.runtime.cache import ArtifactCache, CacheWarning
from fastdeploy_diffusion.runtime.cache_entry import CacheKey
from fastdeploy_diffusion.runtime.program import Signature

_NO_SIZES = Signature((), ())


@dataclass(eq=False)
class Placer:
    """Chooses the placement of a component, and falls back where that fails.

    Args:
        pass_names: The passes asked for; ``None`` for those that pay on the engine.
        cache: ``None`` to keep no plans.

    Attributes:
        placement: The present choice; another object after each change.
        names: The passes that are asked for, or measured with the placement, or left after a
            fallback; ``None`` for those that pay, which depend on the size.
        report: Of the choice, without the results of a build.

    Raises:
        EngineUnavailableError: The engine asked for cannot run here, and there is no fallback.
    """

    name: str
    choice: EngineChoice
    cpu_fallback: bool
    network: Network
    pass_names: Sequence[str] | None
    cache: ArtifactCache | None
    build_class: type[ComponentBuild]
    placement: Placement = field(init=False)
    names: Sequence[str] | None = field(init=False)
    report: ComponentReport = field(init=False)

    def __post_init__(self) -> None:
        self._device = parse_device(self.choice.device)
        self._refusal = ""  # of int8, for good
        self._left_out: tuple[LeftOutPass, ...] = ()
        self._found: dict[tuple[str, ...], tuple[AnyPass, ...]] = {}  # looking takes milliseconds
        self._guard = PrecisionGuard(
            self.name, self.network.model, self.choice.pinned_by, self.cache, self.make_key
        )
        self.place()

    def place(self, measured: ComponentPlan | None = None) -> None:
        """Choose engine, precision and passes: under ``auto``, the fastest of the plan.

        ``measured`` is the plan; by default the one that is kept.
        """
        choice = self.choice
        select = partial(
            select_engine,
            device=self._device,
            cpu_fallback=self.cpu_fallback,
            threads=choice.threads,
            target=choice.target,
            options=choice.options,
            portable_int8=choice.portable_int8,
        )
        # Nothing is known to be right in half precision before it was measured.
        unmeasured = "fp32" if choice.precision == AUTO else choice.precision
        placement = select(choice.engine, precision=unmeasured)
        installable = placement.installable
        is_open = AUTO in (choice.engine, choice.precision)
        is_planned = is_open or self._guard.is_needed(placement)
        has_defaults = self.pass_names is None and bool(placement.engine.paying_passes)
        kept = None
        # An engine that cannot run here, and has a fallback, has no plan.
        if (is_planned or has_defaults) and not placement.fallback:
            kept = measured or self.find_plan()
        plan = kept if is_planned else None
        taken = None
        if plan and is_open:
            # A plan may be of the same network as a whole, which other engines run, too.
            ways = tuple(each for each in plan.candidates if self.build_class.runs_on(each.engine))
            usable = replace(plan, candidates=ways)
            taken = usable.choose(choice.precision, self.pass_names, engine=choice.engine)
        if taken:
            placement = select(taken.engine, precision=taken.precision)
        placement = self._guard.avoid(placement, plan)
        if self._refusal and PRECISIONS[placement.spec.precision].is_quantized:
            refused = AccuracyError(f"{self.name}: {self._refusal}", relative_error=math.inf)
            placement = self._guard.retreat(placement, refused, remembers=False) or placement
            taken = None
        self.names = taken.passes if taken else self.pass_names
        self._found.clear()
        self.placement = placement
        if kept and self.pass_names is None:
            self._note_left_out(kept.left_out, "earlier: ")
        if self.pass_names is not None:
            self._warn_of_idle_passes()
        else:
            found = find_passes(self.name_passes())
            native = [each.name for each in found if each.is_native]
            if native and (missing := explain_missing_compiler()):
                installable = {**installable, **dict.fromkeys(native, missing)}
        spec = placement.spec
        self.report = ComponentReport(
            self.name,
            placement.engine.name,
            str(spec.device),
            spec.precision,
            placement.fallback,
            slower=placement.engine.supports(spec).slower,
            target=spec.target,
            passed_over=plan.explain(taken, choice.precision)
            if plan and taken
            else placement.passed_over,
            installable=installable,
            measured_seconds=taken.seconds if taken else None,
            left_out=self._find_left_out(),
        )

    def name_passes(self, signature: Signature = _NO_SIZES) -> tuple[str, ...]:
        """Name the passes for a signature; by default, those of a network without sizes."""
        names = self.names
        if names is None:
            engine, precision = self.placement.engine, self.placement.spec.precision
            names = self.build_class.name_default_passes(engine, precision, self.network, signature)
        left_out = self._find_left_out()
        return tuple(each for each in names if each not in left_out)

    def choose_passes(self, signature: Signature) -> tuple[AnyPass, ...]:
        """Choose the passes for a signature."""
        names = self.name_passes(signature)
        if names not in self._found:
            self._found[names] = keep_compilable(find_passes(names), self.placement)
        return keep_usable(self._found[names], signature)

    def retreat(self, error: Exception) -> bool:
        """Fall back to a safer precision, with a warning, if that is to blame for an error.

        Returns:
            Whether there is one.

        Raises:
            AccuracyError: The precision is pinned, and its numbers are too far off.
            NonFiniteError: The precision is pinned, and its outputs are not all numbers.
        """
        return self._move(self._guard.retreat(self.placement, error), self.names)

    def leave_out(self, guilty: Mapping[str, PassError]) -> None:
        """Go without default passes that fail, with a warning, and record why.

        At any size, as long as engine and precision stay.
        """
        engine, precision = self.placement.engine.name, self.placement.spec.precision
        failed = [
            LeftOutPass(engine, precision, name, error.problem) for name, error in guilty.items()
        ]
        self._note_left_out(failed)
        self.report = replace(self.report, left_out=self._find_left_out())
        if self.cache is None:
            return
        try:
            key, model = self.make_key(self.cache), self.network.model
            remember_failures(self.cache, key, self.name, left_out=failed, model=model)
        except CacheError as error:
            message = (
                f"{self.name}: could not record that {', '.join(guilty)} is left out: "
                f"{error.in_one_line}"
            )
            warnings.warn(message, CacheWarning, stacklevel=2)

    def refuse_precision(self, reason: str) -> None:
        """Fall back from int8 to the next safer precision, with a warning, also after `tune`.

        The caller keeps the reason for other starts.

        Raises:
            AccuracyError: The precision is pinned.
        """
        self._refusal = reason
        self.place()

    def fall_back(self, error: EngineError) -> bool:
        """Fall back to the CPU's engine from one that failed, with a warning, where allowed.

        Of the passes, those that change the picture stay: it is still the one that was asked for.
        """
        # A build for another machine cannot fall back to an engine here.
        if not self.cpu_fallback or self.placement.spec.target is not None:
            return False
        kept = keep_changing(find_passes(self.names or ()))
        return self._move(
            replace_engine(self.placement, error.problem), [each.name for each in kept]
        )

    def find_plan(self) -> ComponentPlan | None:
        """Look up the plan of `tune`; ``None`` if it was not tuned here."""
        if self.cache is None or not self.cache.root.exists():
            return None
        try:
            return find_plan(self.cache, self.make_key(self.cache))
        except CacheError as error:
            message = f"{self.name}: cannot read the tuning plan: {error.in_one_line}"
            warnings.warn(message, CacheWarning, stacklevel=2)
            return None

    def tune(
        self,
        build: ComponentBuild,
        cache: ArtifactCache,
        *,
        runs: int,
        show: Callable[[str], None],
    ) -> ComponentPlan:
        """Measure every way to run a build, keep what was found, and go by it.

        A plan that cannot be kept is a `CacheWarning`: this component alone goes by it.

        Args:
            show: Called with each way before it is tried.
        """
        plan = tune_component(
            build,
            self._device,
            passes=self.pass_names,
            cache=cache,
            runs=runs,
            show=show,
        )
        try:
            plan = keep_plan(cache, self.make_key(cache), plan, self.network.model)
        except CacheError as error:
            message = f"{self.name}: what was measured is not kept: {error.in_one_line}"
            warnings.warn(message, CacheWarning, stacklevel=2)
        self.place(plan)
        return plan

    def make_key(self, cache: ArtifactCache) -> CacheKey:
        """Make the key of the plan; raises `CacheError`."""
        names = set(AUTO_ORDER[self._device.kind]) & set(engine_names())
        engines = [create_engine(name) for name in sorted(names)]
        code = ("fastdeploy_diffusion.compiler.tuning", *self.network.modules)
        identity = self.network.identify(cache.root)
        target = self.choice.target
        return make_plan_key(engines, self._device, self.name, identity, code, target)

    def _move(self, placement: Placement | None, names: Sequence[str] | None) -> bool:
        if placement is None:
            return False
        self.names, self.placement, spec = names, placement, placement.spec
        self._found.clear()
        self.report = replace(
            self.report,
            engine=placement.engine.name,
            device=str(spec.device),
            precision=spec.precision,
            fallback=placement.fallback,
            measured_seconds=None,
            left_out=self._find_left_out(),
        )
        return True

    def _find_left_out(self) -> dict[str, str]:
        """Map the default passes that are left out of present builds to how they failed."""
        present = (self.placement.engine.name, self.placement.spec.precision)
        return {
            each.name: each.reason
            for each in self._left_out
            if (each.engine, each.precision) == present
        }

    def _note_left_out(self, failed: Sequence[LeftOutPass], when: str = "") -> None:
        """Leave out passes from now on, with a warning for each that present builds would have."""
        new = [each for each in failed if each not in self._left_out]
        self._left_out = (*self._left_out, *new)
        for name, reason in self._find_left_out().items():
            if name in {each.name for each in new}:
                message = f"{self.name}: the default pass {name} is left out: {when}{reason}"
                warnings.warn(message, PassWarning, stacklevel=2)

    def _warn_of_idle_passes(self) -> None:
        """Warn of requested passes that have no effect here."""
        engine, asked = self.placement.engine, find_passes(self.pass_names or ())
        kept = keep_compilable(asked, self.placement)
        if dropped := {each.name for each in asked} - {each.name for each in kept}:
            reason = engine.refuse_native(self.placement.spec)
            message = f"{self.name}: {', '.join(sorted(dropped))} is left out: {reason}"
            warnings.warn(message, PassWarning, stacklevel=2)
        if engine.dialect is not None:
            return
        idle = [each.name for each in kept if isinstance(each.load(), GraphPass)]
        if idle:
            message = (
                f"{self.name}: {engine.name} reads no ONNX graph to apply {', '.join(idle)} to"
            )
            warnings.warn(message, PassWarning, stacklevel=2)
