"""Builds of decoders and encoders that run tile by tile, with the numbers of the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, cast

from fastdeploy_diffusion.checkpoints import list_shapes
from fastdeploy_diffusion.compiler.build import BuiltSession, ComponentBuild
from fastdeploy_diffusion.compiler.reference import Reference
from fastdeploy_diffusion.criteria import Accuracy
from fastdeploy_diffusion.errors import CacheError, ConfigError, EngineError, EngineUnavailableError
from fastdeploy_diffusion.lazy import defer, load
from fastdeploy_diffusion.passes.base import LayerPass, apply_passes
from fastdeploy_diffusion.passes.contract import AnyPass
from fastdeploy_diffusion.precision import FLOATS, PRECISIONS
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.predictors.tiled_session import TiledSession, TileProgram
from fastdeploy_diffusion.runtime.cache import ArtifactCache
from fastdeploy_diffusion.runtime.program import Program, Signature, TensorSpec

if TYPE_CHECKING:
    from fastdeploy_diffusion.models.tile_stages import TileStage
    from fastdeploy_diffusion.runtime.session import Session

_TAKE_STAGE = "fastdeploy_diffusion.models.stages:take_stage"


@dataclass(frozen=True)
class TiledBuild(ComponentBuild):
    """A `ComponentBuild` that makes every stage between two norms a program for windows.

    The programs of large pictures do not depend on their sizes: they are built once. Each is
    compared with its Paddle layer; the whole is never in memory.
    """

    def open(self, cache: ArtifactCache | None) -> BuiltSession:
        """Build every stage that is not kept, and join them.

        Returns:
            The session, which loads each program for its stage alone; the accuracy of the stage
            that is nearest to its tolerance; and the passes' results for all stages.

        Raises:
            ConfigError: Builds are not kept, or the engine keeps none.
            EngineUnavailableError: The precision is int8.
            CheckpointError: The weights do not fit the network.
            EngineError: As `ComponentBuild.open`.
        """
        engine, precision = self.placement.engine, self.placement.spec.precision
        if cache is None or not engine.keeps_builds:
            raise ConfigError(
                f"{self.name}: tiles run on kept builds, which are loaded one after the other, and "
                + ("cache is false" if cache is None else f"{engine.name} keeps none"),
                allowed="cache=True, and an engine that keeps builds: openvino, onnxruntime …",
                fix="vae_tiling='off', or 'blended'",
            )
        if PRECISIONS[precision].is_quantized:
            raise EngineUnavailableError(
                f"{self.name}: tiles do not run in {precision}",
                allowed=", ".join(FLOATS),
                fix="choose another precision for the VAE, or vae_tiling='blended'",
            )
        self.network.check()
        network = replace(self.network, cut=None, unread=())
        window = self._limit_sizes()
        stages = network.sketch().list_stages(*window)
        fitting = tuple(each for each in self.passes if self._fits(each, network, stages, window))
        programs, accuracies, are_kept = [], [], True
        passes: Counter[str] = Counter()
        for stage in stages:
            build = self._plan_stage(network, stage, window, fitting)
            proven = _prove(build, cache)
            are_kept = are_kept and proven.cached
            accuracies.append(proven.accuracy)
            passes.update(proven.passes)
            programs.append(TileProgram(stage, _opener(build, cache), stage.halo))
        return BuiltSession(
            TiledSession(
                engine.name, Program(self.name, None, self.inputs, self.outputs), programs
            ),
            max((each for each in accuracies if each), key=lambda each: each.share),
            dict(passes),
            cached=are_kept,
        )

    def _plan_stage(
        self,
        whole: Network,
        stage: TileStage,
        window: Signature,
        passes: tuple[AnyPass, ...],
    ) -> ComponentBuild:
        """Plan the build of a stage."""
        cut = defer(_TAKE_STAGE, stage.name, *window)
        network = Network(whole.layer, whole.config, whole.source, cut)
        names = {name: name for name in list_shapes(network.sketch())}
        network = replace(network, source=whole.source.rename(names))
        name, signature = f"{self.name}_{stage.name}", Signature(stage.inputs, stage.outputs)
        return ComponentBuild(
            name,
            self.placement,
            network,
            Reference(name, network, signature, self.reference.root, self.reference.passes),
            passes,
            {each.name: stage.draw[each.name] for each in stage.inputs if each.name in stage.draw},
            *signature,
        )

    def _fits(
        self, asked: AnyPass, whole: Network, stages: Sequence[TileStage], window: Signature
    ) -> bool:
        """Tell whether a pass finds all its places in the stages.

        Not where they are layers of which two stages have a part each, as of an attention.
        """
        loaded = asked.load()
        if not isinstance(loaded, LayerPass):
            return True
        layer, take_stage = whole.sketch(), load(_TAKE_STAGE)
        parts = [take_stage(layer, stage.name, *window) for stage in stages]
        wanted, *found = (
            apply_passes([loaded], each, strict=False)[0][0].count
            for each in (self.network.sketch(), *parts)
        )
        return sum(found) == wanted

    def _limit_sizes(self) -> Signature:
        """Limit the latents to one window, so that all larger pictures have the same programs."""
        (taken,), (given,) = self.inputs, self.outputs
        axes = zip(taken.shape[2:], given.shape[2:], strict=True)
        latents = [min(cast(int, size) for size in sizes) for sizes in axes]

        def limit(spec: TensorSpec) -> TensorSpec:
            sizes = (
                cast(int, size) // least * min(least, self.network.config.window)
                for size, least in zip(spec.shape[2:], latents, strict=True)
            )
            return replace(spec, shape=(1, spec.shape[1], *sizes))

        return Signature((limit(taken),), (limit(given),))


class _Proven(NamedTuple):
    accuracy: Accuracy | None
    passes: Mapping[str, int]
    cached: bool


def _prove(build: ComponentBuild, cache: ArtifactCache) -> _Proven:
    """Look up the proof of a build that is kept, without loading it; else build, prove and keep it.

    Raises:
        EngineError: As `ComponentBuild.open`.
    """
    try:
        with build.lend_artifact(cache) as kept:
            return _Proven(kept.accuracy, kept.passes, True)
    except (CacheError, EngineError):
        built = build.open(cache)
        built.session.close()
        return _Proven(built.accuracy, built.passes, built.cached)


def _opener(build: ComponentBuild, cache: ArtifactCache) -> Callable[[], Session]:
    return lambda: build.open(cache).session
