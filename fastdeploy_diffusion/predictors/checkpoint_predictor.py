"""What the pipelines of all families know of their checkpoint and their components."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from typing_extensions import Self

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.engines.plan import ComponentPlan
from fastdeploy_diffusion.predictors.component import Component
from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor
from fastdeploy_diffusion.predictors.embedding import EmbeddingReport
from fastdeploy_diffusion.predictors.embedding_cache import open_embedding_cache
from fastdeploy_diffusion.predictors.result import PipelineReport
from fastdeploy_diffusion.predictors.session_pool import share_memory


class CheckpointPredictor(DiffusionPredictor):
    """Text to image with a checkpoint; a family says which components it is made of.

    Args:
        config: Which checkpoint, and what to run it on.
        checkpoint: Opened.
    """

    _scheduler_name: str

    def __init__(self, config: DiffusionConfig, checkpoint: Checkpoint) -> None:
        super().__init__(config.memory, open_embedding_cache(config))
        self._config = config
        self._checkpoint = checkpoint
        self._digest: str | None = None
        self._components: tuple[Component, ...] = ()

    def _join(self, *components: Component) -> None:
        """Take a family's components: text encoders, denoiser, VAE."""
        self._components = components
        share_memory(each.pool for each in components)

    @classmethod
    def from_pretrained(cls, model_path: str | os.PathLike[str], **options: Any) -> Self:
        """Open a checkpoint as in diffusers: the same as the class with a path and options."""
        return cls(model_path, **options)  # type: ignore[arg-type]

    @classmethod
    def from_single_file(cls, model_path: str | os.PathLike[str], **options: Any) -> Self:
        """The same for a ``.safetensors`` file, which mostly needs ``tokenizer_path``, too."""
        return cls(model_path, **options)  # type: ignore[arg-type]

    @property
    def config(self) -> DiffusionConfig:
        """What the pipeline was made from."""
        return self._config

    def component(self, name: str) -> Component:
        """Give what runs a network, by its name in the report: ``denoiser``."""
        return {each.name: each for each in self._components}[name]

    def __repr__(self) -> str:
        """Name the model, and what each component runs on."""
        report = self.report
        components = ", ".join(
            f"{each.name}: {each.engine} on {each.device} in {each.precision}"
            for each in report.components
        )
        return f"<{type(self).__name__} {report.model} ({report.family}); {components}>"

    @property
    def report(self) -> PipelineReport:
        """What really runs: engine, device, fallback and proof of each component."""
        return PipelineReport(
            model=str(self._checkpoint.path),
            family=self._checkpoint.family.name,
            scheduler=self._scheduler_name,
            components=tuple(each.report for each in self._components),
            memory=self.config.memory,
        )

    def find_plans(self) -> tuple[ComponentPlan | None, ...]:
        """Give what ``tune`` has found of each component; ``None`` where it was not tuned here."""
        return tuple(each.placer.find_plan() for each in self._components)

    def close(self) -> None:
        """Free the engines' memory; a later request builds again."""
        for each in self._components:
            each.close()
        self._embeddings.clear()

    def _check_weights(self) -> None:
        """Refuse weights that are not their networks': now, not at the first picture."""
        for each in self._components:
            each.check_weights()

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
