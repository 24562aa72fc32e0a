"""Surveys a component: its time, its operations, and the operators that take the time."""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fastdeploy_diffusion.compiler.build import ComponentBuild
from fastdeploy_diffusion.compiler.rewriting import rewrite_network
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.export.operation_counts import OperationCounts, count_operations
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.predictors.stage_programs import cut_program
from fastdeploy_diffusion.runtime.cache import ArtifactCache
from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.session import Session

OPERATORS = 10
_RUNS, _SECONDS = 7, 10.0  # as many runs, unless that takes longer


def survey_component(build: ComponentBuild, cache: ArtifactCache | None) -> dict[str, Any]:
    """Time a component, count its operations, and ask the engine for its operators.

    Of a denoiser with a prologue it is the step that is timed and counted.

    Returns:
        The fields of a `Roofline`, but for the case and the peaks.

    Raises:
        EngineError: It does not build or run, or its operations cannot be counted.
    """
    feeds = build.draw_feeds()
    plain, counts = count_component(build, feeds)
    spec = build.placement.spec
    with build.open(cache).session as session:
        seconds = _time(session, feeds)
        operators = _profile(session, feeds)
    return {
        "component": build.name,
        "engine": build.placement.engine.name,
        "precision": spec.precision,
        "seconds": seconds,
        "plain_flops": plain.flops,
        "flops": counts.flops,
        "moved_bytes": counts.elements * PRECISIONS[spec.precision].weight_bytes,
        **operators,
    }


def count_component(
    build: ComponentBuild, feeds: Mapping[str, np.ndarray]
) -> tuple[OperationCounts, OperationCounts]:
    """Count the operations of one run.

    Returns:
        Those of the network as it was, and of what passes made of it: its step, if they split it.

    Raises:
        EngineError: An operator cannot be counted.
    """
    shapes = {name: array.shape for name, array in feeds.items()}
    plain = Program(build.name, build.network.sketch(), build.inputs, build.outputs)
    program = replace(plain, layer=rewrite_network(build.network, build.layer_passes).layer)
    before = count_operations(plain, shapes)
    *prologue, step = cut_program(program)
    if not prologue:
        return before, count_operations(program, shapes) if build.passes else before
    latents, *features = step.program.inputs
    batch = shapes[latents.name][0]
    filled = {
        each.name: tuple(size if isinstance(size, int) else batch for size in each.shape)
        for each in features
    }
    return before, count_operations(step.program, {**filled, latents.name: shapes[latents.name]})


def _time(session: Session, feeds: Mapping[str, np.ndarray]) -> list[float]:
    run_once = session.prepare(**feeds)
    run_once()
    seconds: list[float] = []
    while len(seconds) < _RUNS and (not seconds or sum(seconds) < _SECONDS):
        started = time.perf_counter()
        run_once()
        seconds.append(time.perf_counter() - started)
    return seconds


def _profile(session: Session, feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
    try:
        found = session.profile(**feeds)
    except EngineError as error:
        return {"operators": [], "kinds": {}, "unprofiled": error.problem}
    kinds: dict[str, float] = defaultdict(float)
    for each in found:
        kinds[each.kind] += each.seconds
    slowest = sorted(found, key=lambda each: -each.seconds)[:OPERATORS]
    return {
        "operators": [each._asdict() for each in slowest],
        "kinds": dict(sorted(kinds.items(), key=lambda each: -each[1])),
        "unprofiled": "",
    }
