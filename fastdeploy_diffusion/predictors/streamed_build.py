"""How Flux's transformer gets its session where the weights of its blocks are streamed."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from fastdeploy_diffusion.checkpoints import check_weights
from fastdeploy_diffusion.device import parse_device
from fastdeploy_diffusion.engines.cache import ArtifactCache
from fastdeploy_diffusion.engines.registry import create_engine, engine_names
from fastdeploy_diffusion.errors import EngineUnavailableError
from fastdeploy_diffusion.passes.graph_pass import GraphPass
from fastdeploy_diffusion.passes.registry import choose_passes
from fastdeploy_diffusion.predictors.block_build import BlockBuild
from fastdeploy_diffusion.predictors.build import BuiltSession, ComponentBuild
from fastdeploy_diffusion.predictors.streamed_parts import StreamedParts
from fastdeploy_diffusion.predictors.streamed_session import StreamedSession
from fastdeploy_diffusion.predictors.weight_stream import WeightStream
from fastdeploy_diffusion.program import Program


@dataclass(frozen=True)
class StreamedBuild(ComponentBuild):
    """A `ComponentBuild` in parts: head, tail, and one program for all blocks of a kind.

    What is built does not depend on the number of blocks, nor does the memory that it takes. Of
    each kind, the first block is compared with the Paddle layer; the whole is never in memory.
    """

    @classmethod
    def runs_on(cls, engine: str) -> bool:
        """Tell whether an engine takes weights as inputs."""
        return create_engine(engine).takes_weights

    @classmethod
    def name_default_passes(cls, engine: str, precision: str) -> tuple[str, ...]:
        """Name those that pay, without those of layers.

        The weights that these make would have to be made of the checkpoint's again at each step.
        """
        passes = choose_passes(None, engine, precision)
        return tuple(each.name for each in passes if isinstance(each, GraphPass))

    def open(self, cache: ArtifactCache | None) -> BuiltSession:
        """Load or build every part, and join them.

        Returns:
            The session, the largest error of a part, and what passes did to all blocks together.

        Raises:
            CheckpointError: The weights do not fit the transformer.
            EngineUnavailableError: The engine does not take weights as inputs.
            EngineError: As `ComponentBuild.open`.
        """
        spec = self.placement.spec
        require_streaming(self.name, self.placement.engine.name, str(spec.device))
        check_weights(self.network.sketch(), self.network.source)
        parts = StreamedParts(self)
        with ExitStack() as unfinished:

            def start(build: ComponentBuild) -> BuiltSession:
                built = build.open(cache)
                unfinished.push(built.session)
                return built

            def start_blocks(build: BlockBuild | None) -> list[BuiltSession]:
                return [] if build is None else [start(build)] * build.weights.count

            head, tail = start(parts.plan_head()), start(parts.plan_tail())
            kinds = parts.plan_double_block(), parts.plan_single_block()
            double_blocks, single_blocks = (start_blocks(kind) for kind in kinds)
            session = StreamedSession(
                Program(self.name, None, self.inputs, self.outputs),
                head.session,
                tail.session,
                [block.session for block in double_blocks],
                [block.session for block in single_blocks],
                WeightStream([kind.weights for kind in kinds if kind]),
            )
            unfinished.pop_all()
        built = [head, tail, *double_blocks, *single_blocks]
        return BuiltSession(
            session,
            max(each.relative_error for each in built if each.relative_error is not None),
            {name: sum(each.passes[name] for each in built) for name in head.passes},
            cached=all(each.cached for each in built),
        )


def require_streaming(component: str, engine: str, device: str) -> None:
    """Refuse an engine that weights are not streamed to.

    Raises:
        EngineUnavailableError: Names those that they are.
    """
    able = [name for name in engine_names() if StreamedBuild.runs_on(name)]
    if engine not in able or parse_device(device).kind != "cpu":
        raise EngineUnavailableError(
            f"{component}: weights are not streamed to {engine} on {device}",
            allowed=f"{', '.join(able)} on cpu",
            fix="choose another engine for the denoiser, or memory='staged'",
        )
