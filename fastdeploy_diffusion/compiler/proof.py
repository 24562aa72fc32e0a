"""The proof of a build: one of its sessions beside the Paddle layer, on the same inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastdeploy_diffusion.criteria import Accuracy, Criterion
from fastdeploy_diffusion.engines.accuracy import draw_feeds, take_last_rows, verify
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.runtime.program import TensorSpec, fill_shapes
from fastdeploy_diffusion.size_range import ScaledRange, SizeRange

if TYPE_CHECKING:
    from fastdeploy_diffusion.compiler.build import ComponentBuild
    from fastdeploy_diffusion.runtime.session import Session

_SEED = 20261120


def compare(build: ComponentBuild, session: Session) -> Accuracy:
    """Compare a session with the layer, on the last row of a picture's; raises as `verify`.

    The session runs the shapes of pictures, so that it compiles for them once; the layer, which is
    slow, runs one row. With free sizes this is done twice, first with one of each input at its
    smallest, or one more than usual: a size that a trace has taken for a constant cannot be right
    in both.

    Returns:
        That of the size at which it is nearer to its tolerance.
    """
    run_reference(build)
    reports = [
        verify(
            build.reference.program,
            session,
            build.reference.expect,
            seed=_SEED,
            criterion=_find_criterion(build),
            generators=build.generators,
            shapes=fill_shapes(build.inputs, sizes),
        )
        for sizes in _list_sizes(build)
    ]
    return max(reports, key=lambda accuracy: accuracy.share)


def run_reference(build: ComponentBuild) -> None:
    """Have the layer's outputs for the proof, computed unless they are kept, and free the layer.

    So the layer's weights and a session's are not in memory together.
    """
    try:
        for row, rounded_to in _list_runs(build):
            build.reference.expect(row, rounded_to)
    finally:
        build.reference.release()


def require_room(build: ComponentBuild) -> None:
    """Refuse a proof if the layer has to run, and does not fit into memory.

    Raises:
        ResourceError: There is less memory than it takes.
    """
    for row, rounded_to in _list_runs(build):
        if not build.reference.knows(row, rounded_to):
            build.reference.require_room({name: array.shape for name, array in row.items()})


def draw_inputs(build: ComponentBuild, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Draw inputs of given sizes, always the same ones."""
    return _draw(build, sizes, build.inputs, _SEED)


def _draw(
    build: ComponentBuild, sizes: Mapping[str, int], inputs: Sequence[TensorSpec], seed: int
) -> dict[str, np.ndarray]:
    shapes = fill_shapes(build.inputs, sizes)
    return draw_feeds(build.name, inputs, seed, build.generators, shapes)


def _list_runs(build: ComponentBuild) -> list[tuple[dict[str, np.ndarray], str]]:
    """List the inputs that the layer runs on, and the type that it is rounded to for each."""
    inputs, criterion = build.reference.program.inputs, _find_criterion(build)
    rows = [
        take_last_rows(inputs, _draw(build, sizes, inputs, _SEED + index))
        for sizes in _list_sizes(build)
        for index in range(criterion.inputs)
    ]
    # Rounding overwrites the weights: first all that needs them as they are.
    return [(row, each) for each in dict.fromkeys(["", criterion.rounds_to]) for row in rows]


def _find_criterion(build: ComponentBuild) -> Criterion:
    return PRECISIONS[build.placement.spec.precision].criterion


def _list_sizes(build: ComponentBuild) -> list[dict[str, int]]:
    """List the sizes that the proof runs on, one after the other."""
    usual = {"batch": build.sizes["batch"]}
    others: dict[str, int] = {}
    for spec in build.inputs:
        free = [
            each.base if isinstance(each, ScaledRange) else each
            for each in spec.shape[1:]
            if isinstance(each, SizeRange)
        ]
        smaller = [(each.name, each.min) for each in free if each.min < each.opt]
        larger = [(each.name, each.opt + 1) for each in free if each.opt < each.max]
        others.update([*smaller, *larger][:1])
    return [{**usual, **others}, usual] if others else [usual]
