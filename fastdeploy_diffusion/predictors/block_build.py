"""The build of one block as a program that takes its weights as inputs."""

from dataclasses import dataclass, field, replace

from fastdeploy_diffusion.engines.accuracy import AccuracyReport
from fastdeploy_diffusion.engines.session import Session
from fastdeploy_diffusion.predictors.block_weights import BlockWeights
from fastdeploy_diffusion.predictors.build import ComponentBuild
from fastdeploy_diffusion.program import Program


@dataclass(frozen=True)
class BlockBuild(ComponentBuild):
    """A `ComponentBuild` whose last inputs are weights; it is proven with those of the first block.

    Args:
        weights: Of all blocks that will run on it.
    """

    weights: BlockWeights = field(kw_only=True)

    def load_reference(self) -> Program:
        """Give the first block as a Paddle layer that has its weights itself."""
        own = self.inputs[: -len(self.weights.specs)]
        return replace(super().load_reference(), inputs=own)

    def prove(self, reference: Program, session: Session) -> AccuracyReport:
        """Compare a session that is given the first block's weights with the layer."""
        session.bind(**self.weights.read_block(0))
        try:
            return super().prove(reference, session)
        finally:
            session.bind()
