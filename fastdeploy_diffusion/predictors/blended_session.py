"""The session of an autoencoder's half that runs on overlapping tiles, and blends them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.session import Arrays, Session


class Overlap(NamedTuple):
    """The sizes of overlapping tiles, as in ``AutoencoderKL.enable_tiling`` of diffusers.

    Args:
        tile: Rows and columns that a tile takes; fewer at the right and lower ends.
        step: Rows and columns from one tile's input to the next.
        blended: Rows and columns of the output in which a tile fades into the next one.
        kept: Rows and columns of a tile's output that are kept.
    """

    tile: int
    step: int
    blended: int
    kept: int

    @classmethod
    def of(cls, taken: int, given: int) -> Overlap:
        """Find them for tiles of so many rows and columns: a quarter overlaps with the next one.

        Args:
            taken: Rows and columns of a tile's input.
            given: Those of its output.
        """
        blended = given // 4
        return cls(taken, max(int(taken * 0.75), 1), blended, given - blended)

    def list_tiles(self, size: int) -> list[slice]:
        """List the rows or columns that the tiles take along an axis."""
        starts = range(0, size, self.step) if size > self.tile else [0]
        return [slice(start, min(start + self.tile, size)) for start in starts]


class BlendedSession(Session):
    """Sessions of a whole decoder or encoder for tiles, behind the signature of the picture.

    The norms of a tile see that tile alone, so that colours may drift from tile to tile: the
    picture is not that of the whole.

    Args:
        program: Of latents (B, C, h, w) and images (B, 3, H, W), or the other way round.
        sessions: By the rows and columns that tiles take.
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
        (given,), (name,) = feeds.values(), self.outputs
        return {name: np.stack([self._blend(each) for each in given])}

    def _blend(self, given: np.ndarray) -> np.ndarray:
        """Map the input of one picture (C, h, w) to its output (D, H, W)."""
        overlap = self._overlap
        _, height, width = given.shape
        kept = slice(overlap.kept)
        above: list[np.ndarray] = []
        rows = []
        for vertical in overlap.list_tiles(height):
            tiles: list[np.ndarray] = []
            for index, horizontal in enumerate(overlap.list_tiles(width)):
                tile = self._run_tile(given[:, vertical, horizontal])
                if above:
                    _fade(above[index], tile, overlap.blended)
                if tiles:
                    left, right = (each.transpose(0, 2, 1) for each in (tiles[-1], tile))
                    _fade(left, right, overlap.blended)
                tiles.append(tile)
            above = tiles
            rows.append(np.concatenate([each[:, kept, kept] for each in tiles], axis=2))
        return np.concatenate(rows, axis=1)

    def _run_tile(self, given: np.ndarray) -> np.ndarray:
        (inputs,), (outputs,) = self.inputs, self.outputs
        session = self._sessions[given.shape[1], given.shape[2]]
        tile: np.ndarray = session.run(**{inputs: np.ascontiguousarray(given[None])})[outputs][0]
        return tile

    def _close(self) -> None:
        for each in self._sessions.values():
            each.close()


def _fade(before: np.ndarray, tile: np.ndarray, extent: int) -> None:
    """Fade the last rows of one tile (C, rows, columns) into the first ones of the next."""
    extent = min(before.shape[1], tile.shape[1], extent)
    if extent:
        share = (np.arange(extent) / extent).astype(np.float32)[:, None]
        tile[:, :extent] = before[:, -extent:] * (1 - share) + tile[:, :extent] * share
