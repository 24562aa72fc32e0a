"""The session of an autoencoder's half that runs tile by tile, with norms over the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from fastdeploy_diffusion.disk_room import explain_full_disk, make_temporary_folder
from fastdeploy_diffusion.runtime.feature_map import FeatureMap, Moments, Window, list_windows
from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.session import Arrays, Session
from fastdeploy_diffusion.runtime.stages import Stage, name_value


class TileProgram(NamedTuple):
    """A stage whose program runs on windows of its first input.

    Args:
        open: Loads its session, for as long as the stage runs: so that the memory of no other
            stage's engine is held meanwhile.
        halo: Rows and columns at a window's sides that depend on what is outside of it.
    """

    stage: Stage
    open: Callable[[], Session]
    halo: int


class TiledSession(Session):
    """The programs of a decoder's or an encoder's stages behind the signature of the whole.

    Stage after stage runs over all windows of the picture. In memory are one window and what the
    engine makes of it; feature maps lie in scratch files, in the folder of temporary files. Of maps
    that are normalised later, the moments are gathered while they are written.

    Args:
        program: Of latents (B, C, h, w) and images (B, 3, H, W), or the other way round.

    Runs raise `DiskFullError` where the maps do not fit.
    """

    def __init__(self, engine: str, program: Program, programs: Sequence[TileProgram]) -> None:
        super().__init__(engine, program)
        self._programs = programs

    def _run(self, feeds: Arrays) -> Arrays:
        (given,), (name,) = feeds.values(), self.outputs
        return {name: np.stack([self._run_one(each) for each in given])}

    def _run_one(self, given: np.ndarray) -> np.ndarray:
        """Map the input of one picture (C, h, w) to its output (D, H, W)."""
        what = f"{self._component}: feature maps"
        with make_temporary_folder(what) as folder, explain_full_disk(what, folder):
            picture = _Picture(folder)
            try:
                picture.add(next(iter(self.inputs)), given)
                for index, each in enumerate(self._programs):
                    picture.run(each, [later.stage for later in self._programs[index + 1 :]])
                return picture.read(next(iter(self.outputs)))
            finally:
                picture.close()

    def _close(self) -> None:
        return  # every stage has closed its own session


class _Picture:
    """The feature maps of one picture, by name, and the moments of those that are normalised."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maps: dict[str, FeatureMap] = {}
        self._moments: dict[str, np.ndarray] = {}

    def add(self, name: str, values: np.ndarray) -> None:
        """Add a whole map, (C, H, W)."""
        channels, height, width = values.shape
        self._maps[name] = FeatureMap(channels, height, width, self._folder)
        self._maps[name].write(values, 0, 0)

    def read(self, name: str) -> np.ndarray:
        """Read a whole map, (C, H, W)."""
        found = self._maps[name]
        values: np.ndarray = found.read((0, found.height), (0, found.width))[0]
        return values

    def run(self, program: TileProgram, later: Sequence[Stage]) -> None:
        """Run a stage over all windows, and drop the maps that no later stage takes."""
        stage = program.stage
        first = self._maps[stage.inputs[0].name]
        height, width = (cast(int, size) for size in stage.inputs[0].shape[2:])
        written, moments = {}, {}
        for spec in stage.outputs:
            _, channels, rows, columns = (cast(int, size) for size in spec.shape)
            size = first.height * rows // height, first.width * columns // width
            name = name_value(spec.name)
            written[name] = FeatureMap(channels, *size, self._folder)
            if groups := _find_groups(name, later):
                moments[name] = Moments(groups)
        whole = self._list_whole_inputs(stage)
        with program.open() as session:
            for window in product(
                list_windows(first.height, height, program.halo),
                list_windows(first.width, width, program.halo),
            ):
                given = session.run(**self._read_windows(stage, window), **whole)
                for spec in stage.outputs:
                    name = name_value(spec.name)
                    kept, *place = _keep(given[spec.name][0], window)
                    written[name].write(kept, *place)
                    if name in moments:
                        moments[name].add(kept)
        for name, each in written.items():
            if replaced := self._maps.get(name):
                replaced.close()
            self._maps[name] = each
        for name, gathered in moments.items():
            self._moments[f"{name}_mean"] = gathered.mean
            self._moments[f"{name}_variance"] = gathered.variance
        taken = {spec.name for each in later for spec in each.inputs}
        if later:
            for name in self._maps.keys() - taken:
                self._maps.pop(name).close()

    def close(self) -> None:
        """Give back the room on the disk."""
        for each in self._maps.values():
            each.close()

    def _read_windows(self, stage: Stage, window: tuple[Window, Window]) -> Arrays:
        rows, columns = ((each.start, each.stop) for each in window)
        return {
            spec.name: self._maps[spec.name].read(rows, columns)
            for spec in stage.inputs
            if len(spec.shape) == 4
        }

    def _list_whole_inputs(self, stage: Stage) -> Arrays:
        """List the inputs that are the same for all windows: moments, and maps as tokens."""
        return {
            spec.name: self._maps[spec.name].read_tokens()
            if len(spec.shape) == 3
            else self._moments[spec.name]
            for spec in stage.inputs
            if len(spec.shape) != 4
        }


def _find_groups(name: str, later: Sequence[Stage]) -> int:
    """Find the number of a map's groups, if one of the later stages normalises it; else 0."""
    for stage in later:
        for spec in stage.inputs:
            if spec.name == f"{name}_mean":
                return cast(int, spec.shape[1])
        if name in (name_value(spec.name) for spec in stage.outputs):
            break  # another map has its name from here on
    return 0


def _keep(values: np.ndarray, window: tuple[Window, Window]) -> tuple[np.ndarray, int, int]:
    """Cut what is kept of a window's results.

    Args:
        values: (C, rows, columns), as many times as large as the window as the map has grown, or
            as small as it has shrunk.

    Returns:
        The part, and the row and the column of its first pixel in the map.
    """
    places, slices = [], []
    for each, given in zip(window, values.shape[1:], strict=True):
        taken = each.stop - each.start
        places.append(each.first * given // taken)
        first, last = ((end - each.start) * given // taken for end in (each.first, each.last))
        slices.append(slice(first, last))
    return values[:, slices[0], slices[1]], places[0], places[1]
