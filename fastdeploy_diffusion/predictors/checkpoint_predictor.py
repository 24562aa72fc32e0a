"""What the pipelines of all families know of their checkpoint and their components."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.predictors.component import Component
from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor
from fastdeploy_diffusion.predictors.embedding import EmbeddingReport
from fastdeploy_diffusion.predictors.embedding_cache import open_embedding_cache
from fastdeploy_diffusion.predictors.result import PipelineReport


class CheckpointPredictor(DiffusionPredictor):
    """Text to image with a checkpoint; a family says which components it is made of.

    Args:
        config: Which checkpoint, and what to run it on.
        checkpoint: Opened.
    """

    # Set by the family: text encoders, denoiser, VAE.
    _components: tuple[Component, ...]
    _scheduler_name: str

    def __init__(self, config: DiffusionConfig, checkpoint: Checkpoint) -> None:
        super().__init__(config.memory, open_embedding_cache(config))
        self.config = config
        self._checkpoint = checkpoint
        self._digest: str | None = None

    @property
    def report(self) -> PipelineReport:
        """What really runs: engine, device, fallback and proof of each component."""
        return PipelineReport(
            model=str(self._checkpoint.path),
            family=self._checkpoint.family,
            scheduler=self._scheduler_name,
            components=tuple(each.report for each in self._components),
            memory=self.config.memory,
        )

    def close(self) -> None:
        """Free the engines' memory; a later request builds again."""
        for each in self._components:
            each.close()
        self._embeddings.clear()

    def _describe_run(self, embeddings: Sequence[EmbeddingReport]) -> dict[str, Any]:
        if self._digest is None:
            self._digest = self._checkpoint.digest()
        return {
            "model": Path(self._checkpoint.path).name,
            "model_digest": self._digest,
            "scheduler": self._scheduler_name,
            "memory": self.config.memory,
            "components": {
                each.name: {
                    "engine": each.engine,
                    "device": each.device,
                    "precision": each.precision,
                    "fallback": each.fallback,
                    "relative_error": each.relative_error,
                }
                for each in self.report.components
            },
            "embeddings": [asdict(each) for each in embeddings],
        }
