"""Measures every way to run a component on this machine."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from fastdeploy_diffusion.compiler.build import ComponentBuild
from fastdeploy_diffusion.compiler.native_passes import keep_compilable
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.placement import AUTO_ORDER, Placement, require_engine
from fastdeploy_diffusion.engines.plan import Candidate, ComponentPlan
from fastdeploy_diffusion.errors import EngineError, EngineUnavailableError, PassError
from fastdeploy_diffusion.passes.by_size import keep_usable
from fastdeploy_diffusion.passes.registry import find_passes
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.runtime.cache import ArtifactCache
from fastdeploy_diffusion.runtime.program import Signature
from fastdeploy_diffusion.runtime.session import Session


def tune_component(
    build: ComponentBuild,
    device: Device,
    *,
    passes: Sequence[str] | None,
    cache: ArtifactCache,
    runs: int,
    show: Callable[[str], None],
) -> ComponentPlan:
    """Build, prove and time every engine in every precision, without and with passes.

    One after the other, so that no more than one build takes memory.

    Args:
        build: Its own engine and passes do not matter.
        passes: Names; ``None`` to try none, each engine's default, and those with the close ones.
        runs: Number of timed runs, after one that is not.
    """
    feeds, signature = build.draw_feeds(), Signature(build.inputs, build.outputs)
    found = []
    for engine in AUTO_ORDER[device.kind]:
        for precision in _list_precisions(build):
            given = build.placement.spec
            spec = BuildSpec(device, precision, given.threads, portable_int8=given.portable_int8)
            try:
                placement = Placement(require_engine(engine, spec), spec)
            except EngineUnavailableError as error:
                found.append(Candidate(engine, precision, refusal=error.problem))
                continue
            chooser = (placement.engine, precision, build.network, signature)
            name = partial(build.name_default_passes, *chooser)
            sets = [(), name(), name(close=True)] if passes is None else [passes]
            chosen = [keep_compilable(find_passes(names), placement) for names in sets]
            # A dict, for there may be no pass that pays.
            for each in dict.fromkeys(keep_usable(each, signature) for each in chosen):
                candidate = replace(build, placement=placement).with_passes(each)
                show(f"{build.name}: {engine} in {precision}, {len(each) or 'no'} passes")
                found.append(_measure(candidate, feeds, cache, runs))
    shapes = {name: array.shape for name, array in feeds.items()}
    return ComponentPlan(build.name, shapes, tuple(found))


def _list_precisions(build: ComponentBuild) -> list[str]:
    """List those that may be taken: what changes pictures, only if it is asked for."""
    asked = build.placement.spec.precision
    return [name for name, each in PRECISIONS.items() if not each.is_quantized or name == asked]


def _measure(
    build: ComponentBuild, feeds: Mapping[str, np.ndarray], cache: ArtifactCache, runs: int
) -> Candidate:
    placement = build.placement
    found = Candidate(
        placement.engine.name,
        placement.spec.precision,
        # In the order in which they are applied, as everywhere.
        tuple(each.name for each in build.passes),
    )
    try:
        built = build.open(cache)
        with built.session as session:
            seconds = _time(session, feeds, runs)
    except (EngineError, PassError) as error:
        return replace(found, refusal=error.problem)
    return replace(found, seconds=seconds, relative_error=built.relative_error)


def _time(session: Session, feeds: Mapping[str, np.ndarray], runs: int) -> float:
    seconds, run_once = [], session.prepare(**feeds)
    for run in range(runs + 1):
        started = time.perf_counter()
        run_once()
        if run:  # the first compiles and warms up
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
