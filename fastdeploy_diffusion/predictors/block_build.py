"""The build of one block as a program that takes its weights as inputs."""

from dataclasses import dataclass, field

from fastdeploy_diffusion.engines.accuracy import AccuracyReport
from fastdeploy_diffusion.engines.session import Session
from fastdeploy_diffusion.predictors.block_weights import BlockWeights
from fastdeploy_diffusion.predictors.build import ComponentBuild


@dataclass(frozen=True)
class BlockBuild(ComponentBuild):
    """A `ComponentBuild` whose last inputs are weights; it is proven with those of the first block.

    Args:
        weights: Of all blocks that will run on it.
    """

    weights: BlockWeights = field(kw_only=True)

    def prove(self, session: Session) -> AccuracyReport:
        """Compare a session that is given the first block's weights with the layer."""
        session.bind(**self.weights.read_block(0))
        try:
            return super().prove(session)
        finally:
            session.bind()
