"""Builds of networks whose blocks' weights are streamed."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastdeploy_diffusion.checkpoints import check_weights, list_shapes
from fastdeploy_diffusion.compiler.build import BuiltSession, ComponentBuild
from fastdeploy_diffusion.compiler.reference import Reference
from fastdeploy_diffusion.compiler.rewriting import rewrite_network
from fastdeploy_diffusion.criteria import Accuracy
from fastdeploy_diffusion.device import parse_device
from fastdeploy_diffusion.engines.base import Engine
from fastdeploy_diffusion.engines.registry import create_engine, engine_names
from fastdeploy_diffusion.errors import EngineUnavailableError
from fastdeploy_diffusion.lazy import defer
from fastdeploy_diffusion.passes.graph_pass import GraphPass
from fastdeploy_diffusion.passes.registry import choose_passes
from fastdeploy_diffusion.precision import FLOATS, PRECISIONS
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.predictors.stage_session import StageSession
from fastdeploy_diffusion.predictors.weight_stream import BlockWeights, WeightStream
from fastdeploy_diffusion.runtime.cache import ArtifactCache
from fastdeploy_diffusion.runtime.program import Program, Signature
from fastdeploy_diffusion.runtime.session import Session
from fastdeploy_diffusion.runtime.stages import check_chain

if TYPE_CHECKING:
    from fastdeploy_diffusion.models.stages import LayerStage

_TAKE_STAGE = "fastdeploy_diffusion.models.stages:take_stage"


@dataclass(frozen=True)
class StageBuild(ComponentBuild):
    """The build of one stage; of blocks, it takes the weights as its last inputs.

    Args:
        weights: Of all blocks that run on it; it is proven with those of the first.
    """

    weights: BlockWeights | None = None

    def prove(self, session: Session) -> Accuracy:
        """Compare a session that is given the first block's weights with the layer."""
        if self.weights is not None:
            session.bind(**self.weights.read_block(0))
        try:
            return super().prove(session)
        finally:
            session.bind()


@dataclass(frozen=True)
class StreamedBuild(ComponentBuild):
    """A `ComponentBuild` that makes every stage a program of its own.

    Neither the build nor its memory depends on the number of blocks. Of each kind, the first block
    is compared with the Paddle layer; the whole is never in memory.
    """

    @classmethod
    def runs_on(cls, engine: str) -> bool:
        """Tell whether an engine takes weights as inputs."""
        return create_engine(engine).takes_weights

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
        """Name the passes that pay, without layer passes.

        The weights that these derive would have to be derived again at each step.
        """
        names = super().name_default_passes(engine, precision, network, signature, close=close)
        return tuple(each.name for each in choose_passes(names) if isinstance(each, GraphPass))

    def open(self, cache: ArtifactCache | None) -> BuiltSession:
        """Load or build every stage, and join them.

        Returns:
            The session, the accuracy of the stage that is nearest to its tolerance, and the
            passes' results for all blocks.

        Raises:
            CheckpointError: The weights do not fit the network.
            EngineUnavailableError: The engine does not take weights as inputs, or not in int8.
            EngineError: As `ComponentBuild.open`.
        """
        require_streaming(self.name, self.placement.engine.name, str(self.placement.spec.device))
        precision = self.placement.spec.precision
        if PRECISIONS[precision].is_quantized:
            raise EngineUnavailableError(
                f"{self.name}: weights are not streamed in {precision}",
                allowed=", ".join(FLOATS),
                fix="choose another precision for the denoiser, or memory='staged'",
            )
        layer = self.network.sketch()
        check_weights(layer, self.network.source)
        signature = Signature(self.inputs, self.outputs)
        stages = [each for each in layer.list_stages(*signature) if each.repeats]
        check_chain(self.name, stages, signature)
        builds = [self._plan_stage(each) for each in stages]
        built = []
        with ExitStack() as unfinished:
            for build in builds:
                built.append(build.open(cache))
                unfinished.push(built[-1].session)
            session = StageSession(
                Program(self.name, None, *signature),
                [(stage, each.session) for stage, each in zip(stages, built, strict=True)],
                WeightStream([build.weights for build in builds if build.weights]),
            )
            unfinished.pop_all()
        return BuiltSession(
            session,
            max((each.accuracy for each in built if each.accuracy), key=lambda each: each.share),
            {
                name: sum(
                    stage.repeats * each.passes[name]
                    for stage, each in zip(stages, built, strict=True)
                )
                for name in built[0].passes
            },
            cached=all(each.cached for each in built),
        )

    def _plan_stage(self, stage: LayerStage) -> StageBuild:
        """Plan the build of a stage, or of the first of its blocks."""
        whole, cut = self.network, defer(_TAKE_STAGE, stage.name, self.inputs, self.outputs)
        network = Network(whole.layer, whole.config, whole.source, cut)
        names = {name: name for name in list_shapes(network.sketch())}
        network = replace(network, source=whole.source.rename(names))
        weights = None
        if stage.blocks:
            # With the names after the passes, which are applied once more when the block is built.
            rewritten = rewrite_network(network, self.layer_passes)
            weights = BlockWeights(
                whole.source,
                stage.blocks,
                stage.repeats,
                list_shapes(rewritten.layer),
                rewritten.recipe,
            )
        name = f"{self.name}_{stage.name}"
        generators = {**self.generators, **stage.draw}
        return StageBuild(
            name,
            self.placement,
            network,
            # Its layer has its weights itself.
            Reference(
                name,
                network,
                Signature(stage.inputs, stage.outputs),
                self.reference.root,
                self.reference.passes,
            ),
            self.passes,
            {each.name: generators[each.name] for each in stage.inputs if each.name in generators},
            (*stage.inputs, *(weights.specs if weights else ())),
            stage.outputs,
            self.sizes,
            weights=weights,
        )


def require_streaming(component: str, engine: str, device: str) -> None:
    """Refuse an engine that weights cannot be streamed to.

    Raises:
        EngineUnavailableError: Names the engines that can.
    """
    able = [name for name in engine_names() if StreamedBuild.runs_on(name)]
    if engine not in able or parse_device(device).kind != "cpu":
        raise EngineUnavailableError(
            f"{component}: weights are not streamed to {engine} on {device}",
            allowed=f"{', '.join(able)} on cpu",
            fix="choose another engine for the denoiser, or memory='staged'",
        )
