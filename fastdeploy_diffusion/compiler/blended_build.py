"""Builds of decoders and encoders that run on overlapping tiles, which are blended."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from typing import cast

from fastdeploy_diffusion.compiler.build import BuiltSession, ComponentBuild
from fastdeploy_diffusion.compiler.reference import Reference
from fastdeploy_diffusion.predictors.blended_session import BlendedSession, Overlap
from fastdeploy_diffusion.runtime.cache import ArtifactCache
from fastdeploy_diffusion.runtime.program import Program, Signature


@dataclass(frozen=True)
class BlendedBuild(ComponentBuild):
    """A `ComponentBuild` of the whole decoder or encoder for every size of tile that a picture has.

    These are at most four: at the right and lower ends, tiles are smaller.
    """

    def open(self, cache: ArtifactCache | None) -> BuiltSession:
        """Load or build it for each size of tile; results and errors are those of all."""
        (taken,), config = self.inputs, self.network.config
        pixels, latents = config.tile_pixels, config.tile_pixels // config.downscale
        is_encoder = taken.name == "images"
        overlap = Overlap.of(pixels, latents) if is_encoder else Overlap.of(latents, pixels)
        heights, widths = (
            {each.stop - each.start for each in overlap.list_tiles(cast(int, size))}
            for size in taken.shape[2:]
        )
        built: dict[tuple[int, int], BuiltSession] = {}
        with ExitStack() as unfinished:
            for size in product(sorted(heights), sorted(widths)):
                built[size] = self._plan_tile(*size).open(cache)
                unfinished.push(built[size].session)
            unfinished.pop_all()
        passes: Counter[str] = Counter()
        for each in built.values():
            passes.update(each.passes)
        program = Program(self.name, None, self.inputs, self.outputs)
        sessions = {size: each.session for size, each in built.items()}
        return BuiltSession(
            BlendedSession(self.placement.engine.name, program, overlap, sessions),
            max(
                (each.accuracy for each in built.values() if each.accuracy),
                key=lambda each: each.share,
            ),
            dict(passes),
            cached=all(each.cached for each in built.values()),
        )

    def _plan_tile(self, height: int, width: int) -> ComponentBuild:
        (taken,), (given,) = self.inputs, self.outputs
        grown = [
            size * cast(int, to) // cast(int, of)
            for size, of, to in zip((height, width), taken.shape[2:], given.shape[2:], strict=True)
        ]
        signature = Signature(
            (replace(taken, shape=(*taken.shape[:2], height, width)),),
            (replace(given, shape=(*given.shape[:2], *grown)),),
        )
        reference = Reference(
            self.name, self.network, signature, self.reference.root, self.reference.passes
        )
        changed = {"reference": reference, "inputs": signature.inputs, "outputs": signature.outputs}
        return ComponentBuild(**{**vars(self), **changed})
