"""How a component gets its session: from a kept build, or made, proven and kept."""

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastdeploy_diffusion.engines.accuracy import (
    TOLERANCES,
    AccuracyReport,
    Generator,
    draw_feeds,
    verify,
)
from fastdeploy_diffusion.engines.cache import ArtifactCache, CacheEntry, CacheKey
from fastdeploy_diffusion.engines.cache_key import make_cache_key
from fastdeploy_diffusion.engines.placement import Placement
from fastdeploy_diffusion.engines.session import Session
from fastdeploy_diffusion.errors import CacheError, EngineError
from fastdeploy_diffusion.passes.base import LayerPass
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.predictors.rewriting import rewrite_network
from fastdeploy_diffusion.predictors.split_session import SplitSession, split_program
from fastdeploy_diffusion.program import Program, TensorSpec

_VERIFY_SEED = 20261120


class CacheWarning(UserWarning):
    """Builds cannot be kept, or a kept one cannot be used; the message says why."""


@dataclass(frozen=True)
class BuiltSession:
    """A session and its proof.

    Args:
        session: Ready to run.
        relative_error: Largest difference from the Paddle float32 layer, relative to the layer's
            largest output.
        passes: How often each pass rewrote the network, by name.
        cached: Whether it comes from a kept build.
    """

    session: Session
    relative_error: float
    passes: Mapping[str, int]
    cached: bool


@dataclass(frozen=True)
class ComponentBuild:
    """A component for given sizes on a given engine.

    Args:
        name: The component.
        placement: Engine and what to build for.
        network: The network and its weights.
        generators: How to draw the inputs of the check that are not standard normal.
        passes: What rewrites the network for the engine.
        inputs: Specs of the inputs.
        outputs: Specs of the outputs.
        rows: How many rows of a batch one picture takes.
    """

    name: str
    placement: Placement
    network: Network
    passes: tuple[LayerPass, ...]
    generators: Mapping[str, Generator]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    rows: int = 1

    def open(self, cache: ArtifactCache | None) -> BuiltSession:
        """Load the kept build if there is one; otherwise build, prove and keep it.

        A cache that cannot be written is a warning, not an error.

        Raises:
            AccuracyError: The engine's results differ from the layer's.
            EngineError: The build failed.
        """
        if cache is None or not self.placement.engine.keeps_builds:
            return self._make_for_now()
        try:
            key = self._key()
            if kept := self._load(cache, key):
                return kept
            with cache.lock(key):
                # Another process may have built it while this one waited.
                return self._load(cache, key) or self._make_and_keep(cache, key)
        except CacheError as error:
            _warn(f"{self.name}: this build is not kept: {error}")
            return self._make_for_now()

    def load_reference(self) -> Program:
        """Give the Paddle layer as it is without passes, with its weights."""
        return Program(self.name, self.network.load(), self.inputs, self.outputs)

    def prove(self, reference: Program, session: Session, tolerance: float) -> AccuracyReport:
        """Compare a session with the layer, on one row of inputs; raises as `verify`."""
        return verify(
            reference,
            session,
            seed=_VERIFY_SEED,
            tolerance=tolerance,
            generators=self.generators,
            shapes=self._fill_shapes(rows=1),
        )

    def draw_feeds(self) -> dict[str, np.ndarray]:
        """Draw the inputs of one picture, the same ones each time."""
        shapes = self._fill_shapes(self.rows)
        return draw_feeds(self.name, self.inputs, _VERIFY_SEED, self.generators, shapes)

    def _fill_shapes(self, rows: int) -> dict[str, tuple[int, ...]]:
        return {each.name: tuple(size or rows for size in each.shape) for each in self.inputs}

    def _key(self) -> CacheKey:
        return make_cache_key(
            self.placement.engine,
            self.placement.spec,
            self.name,
            {"inputs": self.inputs, "outputs": self.outputs},
            {**self.network.identify(), "passes": [each.identify() for each in self.passes]},
        )

    def _load(self, cache: ArtifactCache, key: CacheKey) -> BuiltSession | None:
        entry = cache.find(key)
        if entry is None:
            return None
        try:
            return self._load_entry(entry)
        except EngineError as error:
            _warn(f"{self.name}: the kept build is made again, because it does not load: {error}")
            return None

    def _load_entry(self, entry: CacheEntry) -> BuiltSession:
        program = Program(self.name, None, self.inputs, self.outputs)
        layer, read = None, self.network.read
        if self.passes:
            # The names of rewritten weights come from the passes; no layer gets values.
            rewritten = rewrite_network(self.network, self.passes)
            layer, read = rewritten.layer, rewritten.read
        if self.placement.engine.binds_weights:
            program = replace(program, read_weight=read)
        session = self._load_parts(program, layer, entry.artifact)
        proof = entry.proof
        return BuiltSession(session, proof["relative_error"], proof["passes"], cached=True)

    def _make_and_keep(self, cache: ArtifactCache, key: CacheKey) -> BuiltSession:
        staged = cache.stage(key)
        try:
            built = self._make(staged)
        except BaseException:
            cache.discard(key)
            raise
        try:
            proof = {"relative_error": built.relative_error, "passes": built.passes}
            cache.publish(key, proof)
        except CacheError as error:
            cache.discard(key)
            _warn(f"{self.name}: this build is not kept: {error}")
        return built

    def _make_for_now(self) -> BuiltSession:
        with tempfile.TemporaryDirectory(prefix="fastdeploy-diffusion-") as folder:
            return self._make(Path(folder) / self.name)

    def _make(self, artifact: Path) -> BuiltSession:
        engine, spec = self.placement.engine, self.placement.spec
        reference = self.load_reference()
        program, counts = reference, {}
        if engine.binds_weights or self.passes:
            rewritten = rewrite_network(self.network, self.passes)
            counts = {each.name: each.count for each in rewritten.results}
            layer = rewritten.layer if engine.binds_weights else rewritten.load()
            program = replace(reference, layer=layer, read_weight=rewritten.read)
        for part, folder in _list_parts(program, program.layer, artifact):
            engine.build(part, spec, folder)
        session = self._load_parts(program, program.layer, artifact)
        proof = self.prove(reference, session, TOLERANCES[spec.precision])
        return BuiltSession(session, proof.relative_error, counts, cached=False)

    def _load_parts(self, program: Program, layer: Any, artifact: Path) -> Session:
        sessions = [
            self.placement.engine.load(part, self.placement.spec, folder)
            for part, folder in _list_parts(program, layer, artifact)
        ]
        return SplitSession(program, *sessions) if len(sessions) > 1 else sessions[0]


def _list_parts(program: Program, layer: Any, artifact: Path) -> list[tuple[Program, Path]]:
    """The programs that a network is built as, and where each of them lies."""
    parts = split_program(program, layer)
    if parts is None:
        return [(program, artifact)]
    return [(part, artifact / part.name) for part in parts]


def _warn(message: str) -> None:
    warnings.warn(message, CacheWarning, stacklevel=2)
