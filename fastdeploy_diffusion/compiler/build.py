"""Builds of components: loaded from the cache, or built, proven and kept."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from typing_extensions import Self

from fastdeploy_diffusion.adapters.adaptation import Adaptation
from fastdeploy_diffusion.compiler.artifact import build_artifact, find_artifact
from fastdeploy_diffusion.compiler.cache_key import make_graph_key, make_proof_key
from fastdeploy_diffusion.compiler.foreign_session import ForeignSession
from fastdeploy_diffusion.compiler.precision_guard import PRECISION_ERRORS
from fastdeploy_diffusion.compiler.proof import (
    compare,
    draw_inputs,
    require_room,
    run_reference,
)
from fastdeploy_diffusion.compiler.rebinding import require_rebinding
from fastdeploy_diffusion.compiler.reference import Reference
from fastdeploy_diffusion.criteria import Accuracy
from fastdeploy_diffusion.disk_room import make_temporary_folder
from fastdeploy_diffusion.engines.accuracy import Generator
from fastdeploy_diffusion.engines.base import Engine
from fastdeploy_diffusion.engines.placement import Placement
from fastdeploy_diffusion.errors import (
    AdapterError,
    CacheError,
    DiskFullError,
    EngineError,
    EngineUnavailableError,
)
from fastdeploy_diffusion.native.library import identify_library
from fastdeploy_diffusion.passes.base import LayerPass
from fastdeploy_diffusion.passes.by_size import count_pixels
from fastdeploy_diffusion.passes.contract import AnyPass
from fastdeploy_diffusion.passes.graph_pass import GraphPass
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.predictors.stage_programs import StageProgram
from fastdeploy_diffusion.predictors.stage_session import start_programs
from fastdeploy_diffusion.quantization import Quantization
from fastdeploy_diffusion.runtime.cache import (
    MAKE_ROOM,
    ArtifactCache,
    CacheSlot,
    CacheWarning,
)
from fastdeploy_diffusion.runtime.cache_entry import CacheEntry, CacheKey, Proof
from fastdeploy_diffusion.runtime.program import Program, Signature, TensorSpec
from fastdeploy_diffusion.runtime.session import Session
from fastdeploy_diffusion.runtime.weight_store import WeightStore

# The modules that fill an artifact, join the sessions of its parts, and prove them.
_BUILDS = "fastdeploy_diffusion.compiler.artifact"
_JOINS = "fastdeploy_diffusion.predictors.stage_session"
_PROVES = ("fastdeploy_diffusion.compiler.proof", "fastdeploy_diffusion.compiler.reference")


class UncheckedWarning(UserWarning):
    """A build for another machine was not compared with the layer; the message says why."""


@dataclass(frozen=True)
class BuiltSession:
    """A session and its proof.

    Args:
        session: Ready to run; a `ForeignSession` if it cannot run here.
        accuracy: How far it is from the Paddle float32 layer; ``None`` if that was not measured.
        unchecked: Why its error was not measured; ``None`` if it was.
    """

    session: Session
    accuracy: Accuracy | None
    passes: Mapping[str, int]
    cached: bool
    unchecked: str | None = None

    @property
    def relative_error(self) -> float | None:
        """Of its accuracy."""
        return self.accuracy.relative_error if self.accuracy else None


class KeptBuild(NamedTuple):
    """The folder of a build, its programs, and the fields of its `BuiltSession`."""

    folder: Path
    parts: list[StageProgram]
    passes: Mapping[str, int]
    accuracy: Accuracy


@dataclass(frozen=True)
class ComponentBuild:
    """A component for given sizes on a given engine.

    Args:
        reference: The layer that it is compared with; variants of this build share it, unless
            their passes change the picture.
        generators: For inputs of the check that are not standard normal.
        sizes: Of one picture, by the names of free dimensions; ``"batch"`` is also the size of
            those without a name.
        quantization: Ranges and exceptions of a build in int8; ``None`` before it is calibrated.
        adaptation: Adapters whose weights the session gets in place of the network's own.
    """

    name: str
    placement: Placement
    network: Network
    reference: Reference
    passes: tuple[AnyPass, ...]
    generators: Mapping[str, Generator]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    sizes: Mapping[str, int] = field(default_factory=lambda: {"batch": 1})
    quantization: Quantization | None = None
    adaptation: Adaptation | None = None

    @classmethod
    def runs_on(cls, engine: str) -> bool:
        """Tell whether it can be built for an engine, on any machine."""
        return True

    @classmethod
    def name_default_passes(
        cls,
        engine: Engine,
        precision: str,
        network: Network,
        signature: Signature,
        *,
        close: bool = False,
    ) -> tuple[str, ...]:
        """Name the default passes: those that pay on the engine; with ``close``, may pay."""
        pixels = count_pixels(signature)
        return engine.name_default_passes(precision, network.role, pixels, close=close)

    def open(self, cache: ArtifactCache | None) -> BuiltSession:
        """Load the kept build if there is one; otherwise build, prove and keep it.

        A cache that cannot be written, or has no room, is a warning; an error for a build for
        another machine, which would be lost. A build that cannot run here is not proven: that is a
        warning, and its machine proves it when it first loads it.

        Raises:
            CacheError: A build for another machine cannot be kept.
            AccuracyError: The engine's results differ from the layer's.
            EngineError: The build failed.
            DiskFullError: There is no room for it anywhere.
            AdapterError: There are adapters, and nothing that is kept takes their weights.
        """
        if self.adaptation is not None:
            return self._open_adapted(cache, self.adaptation)
        if cache is None or not self.placement.engine.keeps_builds:
            return self._make_for_now()
        try:
            graph, proof = self.find_keys(cache.root)
            with cache.read(graph) as entry:
                if kept := self._load(cache, entry, proof):
                    return kept
            with cache.lock(graph) as slot:
                # Another process may have built it while this one waited.
                found = slot.find()
                is_tried = entry and found and entry.made == found.made
                kept = None if is_tried else self._load(cache, found, proof)
                return kept or self._make_and_keep(cache, slot, proof)
        except CacheError as error:
            if self._find_obstacle():
                raise  # It cannot run here: without a cache it is of no use.
            _warn(f"{self.name}: this build is not kept: {error.in_one_line}")
            return self._make_for_now()

    def _open_adapted(self, cache: ArtifactCache | None, adaptation: Adaptation) -> BuiltSession:
        """Load the kept build with the weights of adapters: nothing is exported or built for them.

        It is built and proven with the network's own weights first, if it is not kept; its proof
        is that of the session.
        """
        engine, own = self.placement.engine, replace(self, adaptation=None)
        if not engine.keeps_builds:  # it runs the layer itself
            source = adaptation.apply(self.network.source)
            network = replace(self.network, source=source)
            signature = Signature(self.inputs, self.outputs)
            reference = Reference(self.name, network, signature, None, self.reference.passes)
            return replace(own, network=network, reference=reference)._make_for_now()
        cache = require_rebinding(self.name, engine, cache)
        try:
            with suppress(EngineError):  # a damaged one is built again
                if kept := self._load_adapted(cache):
                    return kept
            own.open(cache).session.close()
            if kept := self._load_adapted(cache):
                return kept
        except CacheError as error:
            raise AdapterError(
                f"{self.name}: adapters are bound to kept builds: {error.problem}", fix=error.fix
            ) from error
        raise AdapterError(
            f"{self.name}: adapters are bound to kept builds, and this one could not be kept",
            fix=MAKE_ROOM,
        )

    def _load_adapted(self, cache: ArtifactCache) -> BuiltSession | None:
        graph, proof = self.find_keys(cache.root)
        with cache.read(graph) as entry:
            found = entry.find_proof(proof) if entry else None
            if entry is None or found is None:
                return None
            program, parts = find_artifact(self, entry.artifact)
            store = cache.open_store(entry.digest)
            session = self._start(program, parts, None, cache.root, store)
            return BuiltSession(session, found.accuracy, entry.record["passes"], cached=True)

    def with_passes(self, passes: Sequence[AnyPass]) -> Self:
        """Plan the same build with other passes, and compare it with what these change."""
        return replace(self, passes=tuple(passes), reference=self.reference.follow(passes))

    @property
    def layer_passes(self) -> tuple[LayerPass, ...]:
        """Those that rewrite the layer."""
        passes = (each.load() for each in self.passes)
        return tuple(each for each in passes if isinstance(each, LayerPass))

    @property
    def graph_passes(self) -> tuple[GraphPass, ...]:
        """Those that rewrite the exported graph."""
        passes = (each.load() for each in self.passes)
        return tuple(each for each in passes if isinstance(each, GraphPass))

    @property
    def code(self) -> list[str]:
        """The modules, beside the engine's, that decide the content of the artifact."""
        return [_BUILDS, *self.network.modules, *(each.module for each in self.passes)]

    def identify(self, root: Path) -> str:
        """Hash all that its numbers depend on: its keys, and the number of threads.

        Raises:
            CacheError: The device cannot be identified.
        """
        graph, proof = (key.ingredients for key in self.find_keys(root))
        threads = self.placement.spec.cpu_threads
        adapters = {"adapters": self.adaptation.digest} if self.adaptation else {}
        return CacheKey({"graph": graph, "proof": proof, "threads": threads, **adapters}).digest

    def find_keys(self, root: Path) -> tuple[CacheKey, CacheKey]:
        """Make the keys of the artifact and of its proof.

        Raises:
            CacheError: The device cannot be identified.
        """
        network = self.network.identify(root)
        engine, spec = self.placement.engine, self.placement.spec
        passes = {"passes": [each.identify() for each in self.passes]}
        if any(each.is_native for each in self.passes) and engine.native_adapter:
            library = identify_library(engine.native_adapter, engine.native_runtimes)
            passes["library"] = [library]
        graph = make_graph_key(
            engine,
            spec,
            self.name,
            {"inputs": self.inputs, "outputs": self.outputs},
            {**network, **passes, **self._identify_quantization()},
            self.code,
        )
        return graph, make_proof_key(engine, spec, network["weights"], [_JOINS, *_PROVES])

    @contextmanager
    def lend_artifact(self, cache: ArtifactCache) -> Iterator[KeptBuild]:
        """Lend the kept build, which no process changes until the block ends.

        Raises:
            CacheError: It is not kept.
            EngineError: It was not proven here.
        """
        graph, proof = self.find_keys(cache.root)
        with cache.read(graph) as entry:
            if entry is None:
                raise CacheError(f"{self.name}: there is no kept build of it", fix=MAKE_ROOM)
            found = entry.find_proof(proof)
            if found is None:
                raise EngineError(
                    f"{self.name}: the build for {self.placement.spec} was not proven here",
                    fix="make the bundle on a machine that runs it",
                )
            _, parts = find_artifact(self, entry.artifact)
            yield KeptBuild(entry.artifact, parts, entry.record["passes"], found.accuracy)

    def _identify_quantization(self) -> dict[str, Any]:
        spec = self.placement.spec
        if not PRECISIONS[spec.precision].is_quantized:
            return {}
        quantization = self.quantization or Quantization()
        return {"quantization": [spec.precision, spec.weight_bits, quantization.digest]}

    def prove(self, session: Session) -> Accuracy:
        """Compare a session with the layer; see `compare`."""
        return compare(self, session)

    def _prove_or_close(self, session: Session) -> Accuracy:
        """Prove a session; a wrong one is closed, before another is built in its place."""
        try:
            return self.prove(session)
        except BaseException:
            session.close()
            raise

    def draw_feeds(self) -> dict[str, np.ndarray]:
        """Draw the inputs of one picture, the same ones each time."""
        return draw_inputs(self, self.sizes)

    def _load(
        self, cache: ArtifactCache, entry: CacheEntry | None, proof: CacheKey
    ) -> BuiltSession | None:
        if entry is None:
            return None
        try:
            return self._load_entry(cache, entry, proof)
        except EngineError as error:
            if isinstance(error, PRECISION_ERRORS) and entry.list_proofs():
                raise  # The build is right: another one would be the same.
            _warn(
                f"{self.name}: the kept build is made again, because it does not load: "
                f"{error.in_one_line}"
            )
            return None

    def _load_entry(self, cache: ArtifactCache, entry: CacheEntry, key: CacheKey) -> BuiltSession:
        obstacle = self._find_obstacle()
        program, parts = find_artifact(self, entry.artifact)
        passes, found = entry.record["passes"], entry.find_proof(key)
        if found is None and obstacle is None:
            run_reference(self)  # The session has not read its weights yet.
        session = self._start(program, parts, obstacle, cache.root, cache.open_store(entry.digest))
        if found is not None:
            return BuiltSession(session, found.accuracy, passes, cached=True)
        if obstacle is not None:
            return self._leave_unchecked(BuiltSession(session, None, passes, True, obstacle))
        # Built elsewhere for this machine, or here of other weights or for another precision.
        accuracy = self._prove_or_close(session)
        try:
            cache.record_proof(entry, Proof(key, accuracy))
        except CacheError as unwritten:
            _warn(f"{self.name}: the proof of a build is not kept: {unwritten.in_one_line}")
        return BuiltSession(session, accuracy, passes, cached=True)

    def _make_and_keep(self, cache: ArtifactCache, slot: CacheSlot, key: CacheKey) -> BuiltSession:
        staged = slot.stage()
        try:
            built = self._make(staged, cache.root, slot.open_store())
        except BaseException as error:
            slot.discard()
            if isinstance(error, DiskFullError) and cache.root in error.folder.parents:
                raise CacheError(f"{error.shortage} in {cache.root}", fix=MAKE_ROOM) from error
            raise
        try:
            proof = Proof(key, built.accuracy) if built.accuracy else None
            slot.publish({"passes": dict(built.passes)}, self.network.model, proof)
        except CacheError as error:
            slot.discard()
            if built.unchecked:
                raise
            _warn(f"{self.name}: this build is not kept: {error.in_one_line}")
        return built

    def _make_for_now(self) -> BuiltSession:
        with make_temporary_folder(self.name) as folder:
            return self._make(folder / self.name)

    def _make(
        self, artifact: Path, notes: Path | None = None, store: WeightStore | None = None
    ) -> BuiltSession:
        obstacle = self._find_obstacle()
        if obstacle is None:
            require_room(self)  # Without the proof, nothing is built: an export takes minutes.
        program, parts, counts = build_artifact(self, artifact, notes)
        if obstacle is None:
            run_reference(self)  # The build has given back its weights; the session has none yet.
        session = self._start(program, parts, obstacle, notes, store)
        if obstacle is not None:
            return self._leave_unchecked(BuiltSession(session, None, counts, False, obstacle))
        return BuiltSession(session, self._prove_or_close(session), counts, cached=False)

    def _find_obstacle(self) -> str | None:
        """Return why a build for a named architecture does not run here; empty if it does."""
        if self.placement.spec.target is None:
            return None
        try:
            self.placement.engine.require_run(self.placement.spec)
        except EngineUnavailableError as error:
            return error.problem
        return None

    def _start(
        self,
        program: Program,
        parts: list[StageProgram],
        obstacle: str | None,
        notes: Path | None,
        store: WeightStore | None,
    ) -> Session:
        engine, spec = self.placement.engine, replace(self.placement.spec, notes=notes)
        if obstacle is not None:
            return ForeignSession(engine.name, program, str(spec.target), obstacle)
        parts = [part._replace(program=replace(part.program, store=store)) for part in parts]
        return start_programs(engine, spec, program, parts)

    def _leave_unchecked(self, built: BuiltSession) -> BuiltSession:
        message = (
            f"{self.name}: the build for {self.placement.spec.target} is not compared with the "
            f"Paddle layer: {built.unchecked}"
        )
        warnings.warn(message, UncheckedWarning, stacklevel=2)
        return built


def _warn(message: str) -> None:
    warnings.warn(message, CacheWarning, stacklevel=2)
