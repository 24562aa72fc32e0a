"""Builds of decoders that run tile by tile, with the numbers of the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from fastdeploy_diffusion.checkpoints import list_shapes
from fastdeploy_diffusion.compiler.build import BuiltSession, ComponentBuild
from fastdeploy_diffusion.compiler.reference import Reference
from fastdeploy_diffusion.errors import ConfigError, EngineUnavailableError
from fastdeploy_diffusion.lazy import defer
from fastdeploy_diffusion.passes.base import LayerPass
from fastdeploy_diffusion.precision import FLOATS, PRECISIONS
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.predictors.tiled_session import TiledSession, TileProgram
from fastdeploy_diffusion.runtime.cache import ArtifactCache
from fastdeploy_diffusion.runtime.program import Program, Signature, TensorSpec

if TYPE_CHECKING:
    from fastdeploy_diffusion.models.decoder_stages import TileStage
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
            EngineUnavailableError: The decoder is in int8.
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
                f"{self.name}: tiles are not decoded in {precision}",
                allowed=", ".join(FLOATS),
                fix="choose another precision for the VAE, or vae_tiling='blended'",
            )
        self.network.check()
        network = replace(self.network, cut=None, unread=())
        layer = network.sketch()
        inputs, outputs = self._limit_sizes()
        builds, programs, accuracies = [], [], []
        passes: Counter[str] = Counter()
        for stage in layer.list_stages(inputs, outputs):
            build = self._plan_stage(network, stage, inputs, outputs)
            built = build.open(cache)
            built.session.close()
            builds.append(built)
            accuracies.append(built.accuracy)
            passes.update(built.passes)
            programs.append(TileProgram(stage, _opener(build, cache), stage.halo))
        return BuiltSession(
            TiledSession(
                engine.name, Program(self.name, None, self.inputs, self.outputs), programs
            ),
            max((each for each in accuracies if each), key=lambda each: each.share),
            dict(passes),
            cached=all(each.cached for each in builds),
        )

    def _plan_stage(
        self,
        whole: Network,
        stage: TileStage,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
    ) -> ComponentBuild:
        """Plan the build of a stage."""
        cut = defer(_TAKE_STAGE, stage.name, inputs, outputs)
        network = Network(whole.layer, whole.config, whole.source, cut)
        names = {name: name for name in list_shapes(network.sketch())}
        network = replace(network, source=whole.source.rename(names))
        name, signature = f"{self.name}_{stage.name}", Signature(stage.inputs, stage.outputs)
        return ComponentBuild(
            name,
            self.placement,
            network,
            Reference(name, network, signature, self.reference.root, self.reference.passes),
            tuple(each for each in self.passes if not isinstance(each.load(), LayerPass)),
            {each.name: stage.draw[each.name] for each in stage.inputs if each.name in stage.draw},
            *signature,
        )

    def _limit_sizes(self) -> Signature:
        """Limit the latents to one window, so that all larger pictures have the same programs."""
        (latents,), (images,), config = self.inputs, self.outputs, self.network.config
        height, width = (min(cast(int, size), config.window) for size in latents.shape[2:])
        growth = config.downscale
        return Signature(
            (replace(latents, shape=(1, latents.shape[1], height, width)),),
            (replace(images, shape=(1, images.shape[1], growth * height, growth * width)),),
        )


def _opener(build: ComponentBuild, cache: ArtifactCache) -> Callable[[], Session]:
    return lambda: build.open(cache).session
