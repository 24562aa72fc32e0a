"""Components that are built for the sizes that they run at."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from types import MappingProxyType

from fastdeploy_diffusion.adapters.adaptation import Adaptation
from fastdeploy_diffusion.compiler.blended_build import BlendedBuild
from fastdeploy_diffusion.compiler.build import BuiltSession, ComponentBuild
from fastdeploy_diffusion.compiler.checked_weights import is_noted, note_fit
from fastdeploy_diffusion.compiler.pass_blame import find_guilty_passes
from fastdeploy_diffusion.compiler.placer import Placer
from fastdeploy_diffusion.compiler.rebinding import require_rebinding
from fastdeploy_diffusion.compiler.reference import Reference
from fastdeploy_diffusion.compiler.tiled_build import TiledBuild
from fastdeploy_diffusion.config import EngineChoice
from fastdeploy_diffusion.engines import accuracy
from fastdeploy_diffusion.engines.placement import Placement
from fastdeploy_diffusion.engines.plan import ComponentPlan
from fastdeploy_diffusion.errors import (
    AdapterError,
    CacheError,
    ConfigError,
    EngineError,
    PassError,
    ResourceError,
)
from fastdeploy_diffusion.int8_report import Int8Report
from fastdeploy_diffusion.out_of_memory import tells_of_memory
from fastdeploy_diffusion.passes.contract import keep_changing, name_changes
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.predictors.component import Component
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.predictors.recovering_session import RecoveringSession, Running
from fastdeploy_diffusion.predictors.tiling import Tiling
from fastdeploy_diffusion.quantization import Quantization
from fastdeploy_diffusion.runtime.cache import ArtifactCache
from fastdeploy_diffusion.runtime.freed_memory import give_back_freed_memory
from fastdeploy_diffusion.runtime.program import Program, Signature
from fastdeploy_diffusion.runtime.session_pool import SessionPool

_TILED_BUILDS: Mapping[Tiling, type[ComponentBuild]] = {
    Tiling.EXACT: TiledBuild,
    Tiling.BLENDED: BlendedBuild,
}


class BuiltComponent(Component):
    """A network that is built for each signature that it runs at, and proven.

    Another signature is another build. The batch is always free; height and width are if the
    signature gives ranges.

    Args:
        passes: Names of the passes; ``None`` for those that pay on the engine.
        cache: ``None`` to keep no builds.
        rows: Rows of a batch for one picture.

    Attributes:
        quantization: Of builds in int8; ``None`` before it is calibrated.

    Raises:
        EngineUnavailableError: The engine asked for cannot run here, and there is no fallback.
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
        self._generators = generators
        self._rows = rows
        self.quantization: Quantization | None = None
        self._is_checked = False
        self.placer = Placer(name, choice, cpu_fallback, network, passes, cache, build_class)
        self.report = self.placer.report
        self.pool = SessionPool(
            self._make,
            self._measure,
            self._is_current,
            self._announce,
        )

    @property
    def placement(self) -> Placement:
        """The present engine and build spec."""
        return self.placer.placement

    @property
    def network(self) -> Network:
        """The network."""
        return self.placer.network

    def plan(
        self, signature: Signature, sizes: Mapping[str, int] = MappingProxyType({})
    ) -> ComponentBuild:
        """Plan the build for a signature, without building it.

        Args:
            sizes: Of a picture, for the ranges of the signature, by their names; the ranges' opt
                where left out.
        """
        cache, passes = self.placer.cache, self.placer.choose_passes(signature)
        root = cache.root if cache else None
        build_class = _TILED_BUILDS.get(self.choose_tiling(signature), self._build_class)
        return build_class(
            self.name,
            self.placer.placement,
            self.placer.network,
            Reference(self.name, self.placer.network, signature, root, keep_changing(passes)),
            passes,
            self._generators,
            *signature,
            sizes={"batch": self._rows, **sizes},
            quantization=self.quantization,
            adaptation=self.adaptation,
        )

    def run_in_windows(self, signature: Signature, wanted: bool) -> bool:
        """Run in windows from now on, or no longer; not without kept builds, nor in int8."""
        placement, cache = self.placer.placement, self.placer.cache
        if self.tiling is None or cache is None or not placement.engine.keeps_builds:
            return False
        if PRECISIONS[placement.spec.precision].is_quantized:
            return False
        return self.tiling.run_in_windows(signature, wanted)

    def quantize(self, quantization: Quantization) -> None:
        """Build in int8 with these ranges and exceptions from now on."""
        if quantization != self.quantization:
            self.quantization = quantization
            self._change_place()

    def check_adaptation(self) -> None:
        """Refuse adapters that it cannot be bound to; raises as `Component.check_adaptation`."""
        engine = self.placer.placement.engine
        if self._build_class is not ComponentBuild:
            raise AdapterError(
                f"{self.name}: adapters are not bound to weights that are streamed",
                allowed="memory='resident' or 'staged'",
                fix="remove memory='streamed'",
            )
        if engine.keeps_builds:
            require_rebinding(self.name, engine, self.placer.cache)

    def adapt(self, adaptation: Adaptation | None) -> None:
        """Bind weights with adapters in them from the next loan on, or the network's own."""
        self.adaptation = adaptation
        self._change_place()

    def refuse_precision(self, reason: str) -> None:
        """Fall back to the next safer precision for good, with a warning.

        Raises:
            AccuracyError: The precision is pinned.
        """
        self.placer.refuse_precision(reason)
        self._change_place()

    def note_int8(self, report: Int8Report) -> None:
        """Set what int8 costs, for reports and metadata."""
        self.int8 = report
        self.report = replace(self.report, int8=report)

    def check_weights(self) -> None:
        """Refuse weights that are not the network's, before anything is built.

        Raises:
            CheckpointError: Lists what is missing, unexpected or of another shape.
        """
        network, cache = self.placer.network, self.placer.cache
        if cache is None or not is_noted(network, cache.root):
            network.check()
            self._is_checked = True

    def describe_placement(self) -> str:
        """Describe the present placement, in all that its numbers may depend on."""
        placement = self.placer.placement
        adapters = f" {self.adaptation.digest}" if self.adaptation else ""
        return f"{placement.engine.name} {placement.spec!r} {self.placer.names}{adapters}"

    def identify(self, signature: Signature) -> str:
        """Compute the digest of all that the numbers of its build depend on.

        Raises:
            CacheError: There is no cache, or the device cannot be identified.
        """
        if self.placer.cache is None:
            raise CacheError(f"{self.name}: builds are not kept", fix="remove cache=False")
        return self.plan(signature).identify(self.placer.cache.root)

    def find_plan(self) -> ComponentPlan | None:
        """Look up the plan of `tune`; ``None`` if it was not tuned here."""
        return self.placer.find_plan()

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
            sizes: As for `plan`.

        A plan that cannot be kept is a `CacheWarning`: this component alone goes by it.

        Raises:
            ConfigError: There is no cache to keep the plan in.
        """
        if self.placer.cache is None:
            raise ConfigError("tune keeps its plan in the cache, and cache is false")
        self.close()  # frees the memory for the builds to come
        with self.pool.making:
            build = replace(self.plan(signature, sizes), adaptation=None)
            plan = self.placer.tune(build, self.placer.cache, runs=runs, show=show)
            self._change_place()
            return plan

    def _make(self, signature: Signature) -> RecoveringSession:
        return RecoveringSession(
            Program(self.name, None, *signature),
            self._build(signature),
            partial(self._recover, signature),
            lambda: self.intercept,
        )

    def _build(self, signature: Signature) -> Running:
        started, tiling = time.perf_counter(), self.choose_tiling(signature)
        build, built = self._open(signature)
        if self._is_checked and self.placer.cache and self.placement.engine.keeps_builds:
            note_fit(self.network, self.placer.cache.root)
        self.report = replace(
            self.placer.report,
            **(asdict(built.accuracy) if built.accuracy else {}),
            build_seconds=time.perf_counter() - started,
            cached=built.cached,
            unchecked=built.unchecked,
            passes=built.passes,
            changes_picture=(
                *name_changes(self.placer.choose_passes(signature), built.passes),
                *self.changes,
                *(("blended-tiles",) if tiling == Tiling.BLENDED else ()),
            ),
            tiling=None if tiling == Tiling.OFF else tiling.value,
        )
        # Compilation and proof free what the first run would come on top of.
        give_back_freed_memory()
        return Running(built.session, self.placer.placement, self.report, build.adaptation)

    def _open(self, signature: Signature) -> tuple[ComponentBuild, BuiltSession]:
        """Build with the chosen passes and precision, or with what is right of them."""
        build = self.plan(signature)
        try:
            return build, build.open(self.placer.cache)
        except (AdapterError, ResourceError):
            raise
        except Exception as error:
            # Too little memory says nothing of precision or passes.
            if tells_of_memory(error) or not self._give_up(build, error):
                raise
        self._change_place()
        return self._open(signature)

    def _give_up(self, build: ComponentBuild, error: Exception) -> bool:
        """Leave out default passes that fail, or else fall back to a safer precision.

        Returns:
            Whether there is something to give up.

        Raises:
            PassError: A pass fails that was asked for.
        """
        if self.placer.pass_names is None:
            # First: the precision was asked for, or measured, and a pass is the smaller loss.
            if guilty := find_guilty_passes(build, error):
                self.placer.leave_out(guilty)
                return True
            return self.placer.retreat(error)
        if isinstance(error, PassError):
            return False
        if self.placer.retreat(error):
            return True
        for guilty_pass in find_guilty_passes(build, error).values():
            raise guilty_pass from error
        return False

    def _recover(self, signature: Signature, error: EngineError, failed: Running) -> Running | None:
        """Build the fallback for an engine that failed, with a warning."""
        with self.pool.making:
            if tells_of_memory(error) and self.pool.make_room():
                return failed  # with more memory
            # Another session may have failed before, of another size that is in use as well.
            if failed.placement is self.placer.placement:
                if not (self.placer.retreat(error) or self.placer.fall_back(error)):
                    return None
                self._change_place()
            # Free its memory first: the failure may be for lack of it.
            failed.session.close()
            return self._build(signature)

    def _is_current(self, session: RecoveringSession) -> bool:
        running = session.running
        is_placed = running.placement is self.placer.placement
        return is_placed and running.adaptation is self.adaptation

    def _change_place(self) -> None:
        """Close sessions of the former placement; those in use close when they are given back."""
        self.pool.drop_idle()
        self.report = replace(self.placer.report, int8=self.int8)
