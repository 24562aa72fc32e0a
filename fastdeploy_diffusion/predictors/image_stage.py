"""The image prompt of a request: what vision towers see, and what adapters make of that."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastdeploy_diffusion.clip_pictures import prepare_pictures
from fastdeploy_diffusion.families.networks.ip_adapter import IMAGE_KEYS, IMAGE_VALUES
from fastdeploy_diffusion.predictors.component import Part
from fastdeploy_diffusion.predictors.embedding_cache import EmbeddingCache
from fastdeploy_diffusion.predictors.embedding_files import Embedding
from fastdeploy_diffusion.predictors.image_encoder import EMBEDS, ImageEncoder
from fastdeploy_diffusion.predictors.ip_adapter import IPAdapter
from fastdeploy_diffusion.predictors.residency import Residency
from fastdeploy_diffusion.predictors.texts import EmbeddingReport, Text, Wanted
from fastdeploy_diffusion.requests.image_prompt import ImagePrompt
from fastdeploy_diffusion.runtime.session import Session

FloatArray = npt.NDArray[np.float32]


def plan_part(network: ImageEncoder | IPAdapter) -> Part:
    """Plan a vision tower or an adapter, which take pictures of one size."""
    return Part(network.component, network.signature(), {})


class ImageStage:
    """The pictures of one request: those that towers saw before are looked up, the others seen.

    Towers and adapters run on one picture after another, so that none depends on the others.

    As in diffusers, negative prompts are shown no picture: for an adapter of the base kind, the
    tower's output is zeros; for "plus", it is what the tower makes of zeros.

    Args:
        is_guided: Whether there are negative prompts.

    Raises:
        ResourceError: A picture is too narrow.
    """

    def __init__(
        self,
        adapters: Sequence[IPAdapter],
        prompt: ImagePrompt,
        cache: EmbeddingCache,
        *,
        is_guided: bool,
    ) -> None:
        self._adapters, self._prompt, self._cache = adapters, prompt, cache
        self._is_guided = is_guided
        self._pixels: dict[bytes, FloatArray] = {}
        self._shown = {
            adapter: [self._show(adapter, each) for each in self._list_pixels(adapter, images)]
            for adapter, images in zip(adapters, prompt.images, strict=True)
        }
        self._found: dict[Text, Embedding] = {}
        self._missing: list[Text] = []
        for adapter, shown in self._shown.items():
            for each in dict.fromkeys(shown):
                if each in self._found or each in self._missing:
                    continue
                found = cache.find(each, adapter.encoder.signature())
                if found is None:
                    self._missing.append(each)
                else:
                    self._found[each] = found

    @property
    def parts(self) -> list[Part]:
        """The towers with pictures left to see, and the adapters."""
        needed = {each.component for each in self._missing}
        towers = [each for each in self._list_towers() if each.component in needed]
        return [*map(plan_part, towers), *map(plan_part, self._adapters)]

    def encode(self, residency: Residency) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """Make the denoiser's inputs of the pictures: keys and values, scaled, of each adapter.

        Returns:
            The inputs for the prompts' rows, and for the negative prompts'; by name, (1, T, width).

        Raises:
            EngineError: A network failed.
        """
        for tower in self._list_towers():
            if any(each.component is tower.component for each in self._missing):
                with residency.lend(plan_part(tower)) as session:
                    self._see(tower, session)
        positive: dict[str, FloatArray] = {}
        negative: dict[str, FloatArray] = {}
        for index, adapter in enumerate(self._adapters):
            seen = [self._found[each].values[None] for each in self._shown[adapter]]
            if self._is_guided and adapter.features == EMBEDS:
                seen.append(np.zeros_like(seen[0]))
            with residency.lend(plan_part(adapter)) as session:
                made = [session.run(**{adapter.features: each}) for each in seen]
            count = len(self._prompt.images[index])
            scale = np.float32(self._prompt.scales[index])
            for target, own in ((positive, made[:count]), (negative, made[count:] * count)):
                if own:
                    keys, values = (
                        np.concatenate([each[name] for each in own], axis=1)
                        for name in ("keys", "values")
                    )
                    target[f"{IMAGE_KEYS}{index}"] = keys
                    target[f"{IMAGE_VALUES}{index}"] = scale * values
        return positive, negative

    def report(self) -> tuple[EmbeddingReport, ...]:
        """Report, after ``encode``, how many pictures were kept; a row for each tower."""
        errors = {each: found.relative_error for each, found in self._found.items()}
        return tuple(
            EmbeddingReport.summarise(each.component, errors, self._missing)
            for each in self._list_towers()
        )

    def _list_towers(self) -> list[ImageEncoder]:
        return list(dict.fromkeys(each.encoder for each in self._adapters))

    def _list_pixels(self, adapter: IPAdapter, images: Sequence[Image.Image]) -> list[FloatArray]:
        """List what its tower sees for an adapter, (3, H, W) each."""
        size = adapter.encoder.config.image_size
        pixels = list(prepare_pictures(images, size))
        if self._is_guided and adapter.features != EMBEDS:
            pixels.append(np.zeros_like(pixels[0]))
        return pixels

    def _show(self, adapter: IPAdapter, pixels: FloatArray) -> Text:
        content = hashlib.sha256(pixels.tobytes()).digest()
        self._pixels[content] = pixels
        return Text(adapter.encoder.component, content, Wanted(adapter.features))

    def _see(self, tower: ImageEncoder, session: Session) -> None:
        wanted: dict[bytes, list[Text]] = {}
        for each in self._missing:
            if each.component is tower.component:
                wanted.setdefault(each.content, []).append(each)
        signature = tower.signature()
        for content, shown in wanted.items():
            outputs = session.run(pixel_values=self._pixels[content][None])
            for each in shown:
                error = tower.component.report.relative_error
                self._found[each] = found = Embedding(each.wanted.take(outputs), error)
                self._cache.keep(each, signature, found)
