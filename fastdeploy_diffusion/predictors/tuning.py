"""Measures every way to run a component on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.accuracy import TOLERANCES, Generator, draw_feeds
from fastdeploy_diffusion.engines.placement import AUTO_ORDER, Placement, select_engine
from fastdeploy_diffusion.engines.plan import Candidate, ComponentPlan
from fastdeploy_diffusion.engines.session import Session
from fastdeploy_diffusion.errors import AccuracyError, EngineError, EngineUnavailableError
from fastdeploy_diffusion.passes.registry import choose_passes, pass_names
from fastdeploy_diffusion.predictors.build import BuiltSession
from fastdeploy_diffusion.program import Program

_SEED = 20261121
Open = Callable[[Placement, Sequence[str]], BuiltSession]
"""Builds and proves a component for a placement, with the passes of these names."""


def tune_component(
    name: str,
    program: Program,
    device: Device,
    *,
    threads: int | None,
    passes: Sequence[str] | None,
    batch: int,
    generators: Mapping[str, Generator],
    runs: int,
    open_build: Open,
) -> ComponentPlan:
    """Build, prove and time every engine, in every precision, without passes and with all.

    One after the other, so that no more than one build takes memory.

    Args:
        name: The component.
        program: Its signature.
        device: Where it runs.
        threads: CPU threads of one run; ``None`` for all.
        passes: Names of the passes; ``None`` to try none and all.
        batch: Size of the free dimensions.
        generators: How to draw the inputs that are not standard normal.
        runs: How many runs are timed, after one that is not.
        open_build: Builds and proves.
    """
    shapes = {
        spec.name: tuple(batch if size is None else size for size in spec.shape)
        for spec in program.inputs
    }
    feeds = draw_feeds(program, seed=_SEED, generators=generators, shapes=shapes)
    sets = [(), pass_names()] if passes is None else [tuple(passes)]
    found = []
    for engine in AUTO_ORDER[device.kind]:
        for precision in TOLERANCES:
            try:
                placement = select_engine(
                    engine, device, precision, cpu_fallback=False, threads=threads
                )
            except EngineUnavailableError as error:
                found.append(Candidate(engine, precision, refusal=str(error.problem)))
                continue
            for names in sets:
                found.append(_try(placement, names, feeds, runs, open_build))
    return ComponentPlan(name, shapes, tuple(found))


def _try(
    placement: Placement,
    names: Sequence[str],
    feeds: Mapping[str, np.ndarray],
    runs: int,
    open_build: Open,
) -> Candidate:
    engine, precision = placement.engine.name, placement.spec.precision
    # In the order in which they are applied, as everywhere.
    passes = tuple(each.name for each in choose_passes(names, engine))
    try:
        built = open_build(placement, passes)
        seconds = _time(built.session, feeds, runs)
    except (AccuracyError, EngineError) as error:
        return Candidate(engine, precision, passes, refusal=str(error.problem))
    built.session.close()
    return Candidate(engine, precision, passes, seconds, built.relative_error)


def _time(session: Session, feeds: Mapping[str, np.ndarray], runs: int) -> float:
    seconds = []
    for run in range(runs + 1):
        started = time.perf_counter()
        session.run(**feeds)
        if run:  # the first compiles and warms up
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
