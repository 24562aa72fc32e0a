"""The IP-Adapters of a pipeline: what they make of pictures for the denoiser's conditioning."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.clip_pictures import prepare_pictures
from fastdeploy_diffusion.families.networks.ip_adapter import IMAGE_KEYS, IMAGE_VALUES
from fastdeploy_diffusion.predictors.component import Component, Part
from fastdeploy_diffusion.predictors.image_encoder import EMBEDS, ImageEncoder
from fastdeploy_diffusion.predictors.ip_adapter import IPAdapter
from fastdeploy_diffusion.predictors.residency import Residency
from fastdeploy_diffusion.requests.image_prompt import ImagePrompt
from fastdeploy_diffusion.runtime.session import Session

FloatArray = npt.NDArray[np.float32]
Features = Mapping[str, FloatArray]
"""The vision tower's outputs for one picture, with a batch of 1."""


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
        return (*map(_plan, self._encoders), *map(_plan, self.adapters))

    def count_tokens(self, prompt: ImagePrompt | None) -> list[int]:
        """Count the tokens of each adapter; without a prompt, of one picture for each."""
        images = prompt.images if prompt else [[None]] * len(self.adapters)
        return [
            len(own) * each.config.tokens for own, each in zip(images, self.adapters, strict=True)
        ]

    def encode(
        self, prompt: ImagePrompt, residency: Residency, *, is_guided: bool
    ) -> tuple[Features, Features]:
        """Make the denoiser's inputs of the pictures: keys and values, scaled, of each adapter.

        As in diffusers, those of the negative prompts are of no picture: for an adapter of the base
        kind, the tower's output is zeros; for "plus", it is what the tower makes of zeros.

        Args:
            is_guided: Whether there are negative prompts.

        Returns:
            The inputs for the prompts' rows, and for the negative prompts'; by name, (1, T, width).

        Raises:
            ResourceError: A picture is too narrow.
            EngineError: A network failed.
        """
        seen: dict[IPAdapter, list[Features]] = {}
        for encoder in self._encoders:
            with residency.lend(_plan(encoder)) as session:
                for adapter, images in zip(self.adapters, prompt.images, strict=True):
                    if adapter.encoder is encoder:
                        size = encoder.config.image_size
                        pixels = prepare_pictures(images, size)
                        seen[adapter] = [session.run(pixel_values=each[None]) for each in pixels]
                        if is_guided:
                            seen[adapter].append(_see_nothing(adapter, session, pixels[:1]))
        positive: dict[str, FloatArray] = {}
        negative: dict[str, FloatArray] = {}
        for index, adapter in enumerate(self.adapters):
            with residency.lend(_plan(adapter)) as session:
                made = [
                    session.run(**{adapter.features: each[adapter.features]})
                    for each in seen[adapter]
                ]
            count, scale = len(prompt.images[index]), np.float32(prompt.scales[index])
            for target, own in ((positive, made[:count]), (negative, made[count:] * count)):
                if own:
                    keys, values = (
                        np.concatenate([each[name] for each in own], axis=1)
                        for name in ("keys", "values")
                    )
                    target[f"{IMAGE_KEYS}{index}"] = keys
                    target[f"{IMAGE_VALUES}{index}"] = scale * values
        return positive, negative

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


def _plan(network: ImageEncoder | IPAdapter) -> Part:
    return Part(network.component, network.signature(), {})


def _see_nothing(adapter: IPAdapter, session: Session, pixels: FloatArray) -> Features:
    """Make the features that stand for no picture."""
    if adapter.features == EMBEDS:
        return {EMBEDS: np.zeros((1, adapter.config.embed_dim), np.float32)}
    return session.run(pixel_values=np.zeros_like(pixels))
