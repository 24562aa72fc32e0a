"""The session of a decoder that runs on overlapping tiles, each by itself, and blends them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.session import Arrays, Session


class Overlap(NamedTuple):
    """The sizes of overlapping tiles, as in ``AutoencoderKL.enable_tiling`` of diffusers.

    Args:
        tile: Rows and columns of a tile's latents; fewer at the right and lower ends.
        step: Rows and columns of latents from one tile to the next.
        blended: Rows and columns of pixels in which a tile fades into the next one.
        kept: Rows and columns of pixels of a tile that are kept.
    """

    tile: int
    step: int
    blended: int
    kept: int

    @classmethod
    def of(cls, pixels: int, downscale: int) -> Overlap:
        """Find them for tiles of so many pixels: a quarter of a tile overlaps with the next one."""
        tile, blended = pixels // downscale, pixels // 4
        return cls(tile, max(int(tile * 0.75), 1), blended, pixels - blended)

    def list_tiles(self, size: int) -> list[slice]:
        """List the latents of the tiles along an axis."""
        starts = range(0, size, self.step) if size > self.tile else [0]
        return [slice(start, min(start + self.tile, size)) for start in starts]


class BlendedSession(Session):
    """Sessions of the whole decoder for tiles, behind the signature of the picture.

    The norms of a tile see that tile alone, so that colours may drift from tile to tile: the
    picture is not that of the whole.

    Args:
        program: Of latents (B, C, h, w) and images (B, 3, H, W).
        sessions: By rows and columns of the tiles' latents.
    """

    def __init__(
        self,
        engine: str,
        program: Program,
        overlap: Overlap,
        sessions: Mapping[tuple[int, int], Session],
    ) -> None:
        super().__init__(engine, program)
        self._overlap, self._sessions = overlap, sessions

    def _run(self, feeds: Arrays) -> Arrays:
        (latents,), (name,) = feeds.values(), self.outputs
        return {name: np.stack([self._decode(each) for each in latents])}

    def _decode(self, latents: np.ndarray) -> np.ndarray:
        """Map latents (C, h, w) to an image (3, H, W)."""
        overlap = self._overlap
        _, height, width = latents.shape
        kept = slice(overlap.kept)
        above: list[np.ndarray] = []
        rows = []
        for vertical in overlap.list_tiles(height):
            tiles: list[np.ndarray] = []
            for index, horizontal in enumerate(overlap.list_tiles(width)):
                tile = self._decode_tile(latents[:, vertical, horizontal])
                if above:
                    _fade(above[index], tile, overlap.blended)
                if tiles:
                    left, right = (each.transpose(0, 2, 1) for each in (tiles[-1], tile))
                    _fade(left, right, overlap.blended)
                tiles.append(tile)
            above = tiles
            rows.append(np.concatenate([each[:, kept, kept] for each in tiles], axis=2))
        return np.concatenate(rows, axis=1)

    def _decode_tile(self, latents: np.ndarray) -> np.ndarray:
        (inputs,), (outputs,) = self.inputs, self.outputs
        session = self._sessions[latents.shape[1], latents.shape[2]]
        image: np.ndarray = session.run(**{inputs: np.ascontiguousarray(latents[None])})[outputs][0]
        return image

    def _close(self) -> None:
        for each in self._sessions.values():
            each.close()


def _fade(before: np.ndarray, tile: np.ndarray, extent: int) -> None:
    """Fade the last rows of one tile (C, rows, columns) into the first ones of the next."""
    extent = min(before.shape[1], tile.shape[1], extent)
    if extent:
        share = (np.arange(extent) / extent).astype(np.float32)[:, None]
        tile[:, :extent] = before[:, -extent:] * (1 - share) + tile[:, :extent] * share
