"""The choice of how a VAE runs on pictures of each size: as a whole, or in tiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from fastdeploy_diffusion.families.networks.activations import Activations
from fastdeploy_diffusion.runtime.program import Signature

if TYPE_CHECKING:
    from fastdeploy_diffusion.families.networks.autoencoder import AutoencoderKLConfig
    from fastdeploy_diffusion.predictors.component import Part


_AXES = 2


class Tiling(str, Enum):
    """A way to decode or encode a picture, as the option ``vae_tiling`` names it."""

    OFF = "off"
    EXACT = "exact"
    BLENDED = "blended"


class TilingChoice:
    """Chooses the tiling of each signature of a decoder, or of an encoder.

    Args:
        asked: As `DiffusionConfig.vae_tiling`.
        config: Of the autoencoder.
    """

    def __init__(self, asked: str, config: AutoencoderKLConfig) -> None:
        self._asked, self._config = asked, config
        self._too_large: set[Signature] = set()

    def choose(self, signature: Signature) -> Tiling:
        """Choose for latents of a size; those that are no larger than one tile are not tiled."""
        config, largest = self._config, max(_list_latent_sizes(signature), default=0)
        if self._asked == Tiling.EXACT and largest > config.window:
            return Tiling.EXACT
        if self._asked == Tiling.BLENDED and largest * config.downscale > config.tile_pixels:
            return Tiling.BLENDED
        return Tiling.EXACT if signature in self._too_large else Tiling.OFF

    def run_in_windows(self, signature: Signature, wanted: bool) -> bool:
        """Run in windows what does not fit as a whole, or no longer, where that may be chosen.

        Returns:
            Whether this changes anything.
        """
        known = _list_latent_sizes(signature)
        is_small = max(known, default=0) <= self._config.window
        if self._asked != "auto" or len(known) < _AXES or is_small:
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
        ((name, (*rows, height, width)),) = shapes.items()
        is_encoder = name == "images"
        if tiling == Tiling.EXACT:
            size = (height // config.downscale, width // config.downscale)
            return config.count_window_activations(size if is_encoder else (height, width))
        if tiling == Tiling.BLENDED:
            side = config.tile_pixels
            side = side if is_encoder else max(side // config.downscale, 1)
            shapes = {name: (*rows, min(height, side), min(width, side))}
        count = config.count_encoder_activations if is_encoder else config.count_activations
        return count(shapes)


def _list_latent_sizes(signature: Signature) -> list[int]:
    """List rows and columns of the latents, as far as they are known."""
    sizes = zip(signature.inputs[0].shape[2:], signature.outputs[0].shape[2:], strict=True)
    return [min(a, b) for a, b in sizes if isinstance(a, int) and isinstance(b, int)]


def run_in_windows_if_needed(parts: Sequence[Part], fits: Callable[[], bool]) -> None:
    """Let a decoder, and then an encoder, run in windows where a request fits in no other way.

    Args:
        parts: Decoder and encoder, as far as the request runs them.
        fits: Tells whether the request fits into memory, as these run now.
    """
    changed: list[Part] = []
    for part in parts:
        if fits():
            break
        if part.component.run_in_windows(part.signature, True):
            changed.append(part)
    is_enough = not changed or fits()
    for part in changed:
        if is_enough:
            part.component.pool.drop_idle()
        else:
            part.component.run_in_windows(part.signature, False)
