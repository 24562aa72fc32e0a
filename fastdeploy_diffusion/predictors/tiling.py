"""The choice of how a VAE decodes pictures of each size: as a whole, or in tiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING

from fastdeploy_diffusion.families.networks.activations import Activations
from fastdeploy_diffusion.runtime.program import Signature

if TYPE_CHECKING:
    from fastdeploy_diffusion.families.networks.autoencoder import AutoencoderKLConfig
    from fastdeploy_diffusion.predictors.component import Part


class Tiling(str, Enum):
    """A way to decode a picture, as the option ``vae_tiling`` names it."""

    OFF = "off"
    EXACT = "exact"
    BLENDED = "blended"


class TilingChoice:
    """Chooses the tiling of each signature of a decoder.

    Args:
        asked: As `DiffusionConfig.vae_tiling`.
        config: Of the autoencoder.
    """

    def __init__(self, asked: str, config: AutoencoderKLConfig) -> None:
        self._asked, self._config = asked, config
        self._too_large: set[Signature] = set()

    def choose(self, signature: Signature) -> Tiling:
        """Choose for latents of a size; those that are no larger than one tile are not tiled."""
        _, _, *sizes = signature.inputs[0].shape
        config, largest = self._config, max(size if isinstance(size, int) else 0 for size in sizes)
        if self._asked == Tiling.EXACT and largest > config.window:
            return Tiling.EXACT
        if self._asked == Tiling.BLENDED and largest * config.downscale > config.tile_pixels:
            return Tiling.BLENDED
        return Tiling.EXACT if signature in self._too_large else Tiling.OFF

    def run_in_windows(self, signature: Signature, wanted: bool) -> bool:
        """Decode in windows what does not fit as a whole, or no longer, where that may be chosen.

        Returns:
            Whether this changes anything.
        """
        sizes = signature.inputs[0].shape[2:]
        known = [size for size in sizes if isinstance(size, int)]
        is_small = max(known, default=0) <= self._config.window
        if self._asked != "auto" or len(known) < len(sizes) or is_small:
            return False
        if (signature in self._too_large) == wanted:
            return False
        self._too_large ^= {signature}
        return True

    def count_activations(
        self, signature: Signature, shapes: Mapping[str, tuple[int, ...]]
    ) -> Activations:
        """Count the numbers alive at once in a run, for shapes of its inputs."""
        tiling, config = self.choose(signature), self._config
        if tiling == Tiling.EXACT:
            return config.count_window_activations(shapes)
        if tiling == Tiling.BLENDED:
            *rows, height, width = shapes["latents"]
            side = max(config.tile_pixels // config.downscale, 1)
            shapes = {"latents": (*rows, min(height, side), min(width, side))}
        return config.count_activations(shapes)


def decode_in_windows_if_needed(decoder: Part, fits: Callable[[], bool]) -> None:
    """Let a decoder run in windows where a request fits into memory in no other way.

    Args:
        fits: Tells whether the request fits, as the decoder runs now.
    """
    choose, signature = decoder.component.run_in_windows, decoder.signature
    if fits() or not choose(signature, True):
        return
    if fits():
        decoder.component.pool.drop_idle()
    else:
        choose(signature, False)
