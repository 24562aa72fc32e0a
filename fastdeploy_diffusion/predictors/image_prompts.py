"""The IP-Adapters of a pipeline: what they make of pictures for the denoiser's conditioning."""

from collections.abc import Sequence
from typing import Any

from fastdeploy_diffusion.predictors.component import Component, Part
from fastdeploy_diffusion.predictors.embedding_cache import EmbeddingCache
from fastdeploy_diffusion.predictors.image_stage import ImageStage, plan_part
from fastdeploy_diffusion.predictors.ip_adapter import IPAdapter
from fastdeploy_diffusion.requests.image_prompt import ImagePrompt


class ImagePrompts:
    """All IP-Adapters of a configuration, which run together.

    Their networks run on one picture after another, so that none depends on the others.
    """

    def __init__(self, adapters: Sequence[IPAdapter]) -> None:
        self.adapters = tuple(adapters)
        self._encoders = tuple(dict.fromkeys(each.encoder for each in self.adapters))

    @property
    def components(self) -> list[Component]:
        """The vision towers and adapters, in the order in which they run."""
        return [part.component for part in self.list_parts()]

    def list_parts(self) -> tuple[Part, ...]:
        """List the parts of a plan."""
        return (*map(plan_part, self._encoders), *map(plan_part, self.adapters))

    def count_tokens(self, prompt: ImagePrompt | None) -> list[int]:
        """Count the tokens of each adapter; without a prompt, of one picture for each."""
        images = prompt.images if prompt else [[None]] * len(self.adapters)
        return [
            len(own) * each.config.tokens for own, each in zip(images, self.adapters, strict=True)
        ]

    def start(self, prompt: ImagePrompt, cache: EmbeddingCache, *, is_guided: bool) -> ImageStage:
        """Start to encode an image prompt.

        Args:
            is_guided: Whether there are negative prompts.

        Raises:
            ResourceError: A picture is too narrow.
        """
        return ImageStage(self.adapters, prompt, cache, is_guided=is_guided)

    def describe(self, prompt: ImagePrompt) -> list[dict[str, Any]]:
        """Describe the image prompt of a picture for its metadata."""
        described = prompt.describe([each.checkpoint.name for each in self.adapters])
        return [
            {
                **each,
                "model_digest": adapter.digest,
                "image_encoder_digest": adapter.encoder.digest,
            }
            for each, adapter in zip(described, self.adapters, strict=True)
        ]
