"""Builds of decoders that run on overlapping tiles, which are blended."""

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
    """A `ComponentBuild` of the whole decoder for every size of tile that a picture has.

    These are at most four: at the right and lower ends, tiles are smaller.
    """

    def open(self, cache: ArtifactCache | None) -> BuiltSession:
        """Load or build the decoder for each size of tile; results and errors are those of all."""
        (latents,) = self.inputs
        config = self.network.config
        overlap = Overlap.of(config.tile_pixels, config.downscale)
        heights, widths = (
            {each.stop - each.start for each in overlap.list_tiles(cast(int, size))}
            for size in latents.shape[2:]
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
        (latents,), (images,) = self.inputs, self.outputs
        growth = self.network.config.downscale
        signature = Signature(
            (replace(latents, shape=(*latents.shape[:2], height, width)),),
            (replace(images, shape=(*images.shape[:2], growth * height, growth * width)),),
        )
        reference = Reference(
            self.name, self.network, signature, self.reference.root, self.reference.passes
        )
        changed = {"reference": reference, "inputs": signature.inputs, "outputs": signature.outputs}
        return ComponentBuild(**{**vars(self), **changed})
