"""The choice of an engine for a component: the one asked for, or a fallback with a warning."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec, Engine
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.errors import EngineUnavailableError
from fastdeploy_diffusion.precision import PRECISIONS

# The fallback for an engine that failed while it ran: the nearest to the reference.
FALLBACK_ENGINE = "paddle"
AUTO = "auto"
# The engines that ``engine="auto"`` tries, the fastest first, and that ``tune`` measures. ``cinn``
# needs more than ``paddle`` and has not been run yet: only a measurement can put it before the
# others.
AUTO_ORDER: Mapping[str, tuple[str, ...]] = {
    "cpu": ("openvino", "onnxruntime", "paddle"),
    "gpu": ("tensorrt", "paddle", "onnxruntime", "cinn"),
    "xpu": ("paddle",),
}


class FallbackWarning(UserWarning):
    """A fallback was taken; the message gives the reason, and what runs instead."""


@dataclass(frozen=True)
class Placement:
    """The engine and build spec of a component.

    Args:
        fallback: Why it is not what was asked for; ``None`` if it is.
        passed_over: With ``auto``, why each engine before this one was not taken, by name.
        installable: The pip commands of engines of ``passed_over`` that only need to be
            installed, by name, usually the fastest first.
    """

    engine: Engine
    spec: BuildSpec
    fallback: str | None = None
    passed_over: Mapping[str, str] = field(default_factory=dict)
    installable: Mapping[str, str] = field(default_factory=dict)


def select_engine(
    name: str,
    device: Device,
    precision: str,
    *,
    cpu_fallback: bool,
    threads: int | None = None,
    target: str | None = None,
    options: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    portable_int8: bool = False,
) -> Placement:
    """Choose the engine asked for if it can run here, and otherwise the nearest on the CPU.

    The fallback is another engine in the same precision, if the CPU was asked for and has the
    instructions; otherwise the first of ``AUTO_ORDER`` in float32.

    Args:
        name: Name of the engine, or ``auto`` for the first of ``AUTO_ORDER`` that can run.
        threads: CPU threads of one run; ``None`` for all.
        target: The GPU architecture to build for; without a fallback.

    Returns:
        The engine and spec; where they are the fallback, a `FallbackWarning` has been issued.

    Raises:
        EngineUnavailableError: It cannot run here, and ``cpu_fallback`` is off, or the CPU cannot
            either.
        ConfigError: There is no engine of this name.
    """
    asked = BuildSpec(device, precision, threads, target, portable_int8=portable_int8)
    try:
        if name == AUTO:
            return _choose(asked, options)
        asked = replace(asked, options=options.get(name, {}))
        return Placement(require_engine(name, asked), asked)
    except EngineUnavailableError as error:
        unavailable = error
    if target is not None:
        raise EngineUnavailableError(
            f"{name} on {asked} cannot be built here: {unavailable.problem}",
            allowed=unavailable.allowed,
            fix=unavailable.fix,
        )
    if not cpu_fallback:
        raise EngineUnavailableError(
            f"{name} on {asked} cannot run here: {unavailable.problem}",
            allowed=unavailable.allowed,
            fix=" — or: ".join(filter(None, (unavailable.fix, "cpu_fallback=True"))),
        )
    if (name, asked) == (FALLBACK_ENGINE, BuildSpec(Device("cpu"), "fp32", threads)):
        raise unavailable
    fallback = _choose_nearest(asked)
    why = (
        f"{name} on {asked} cannot run here ({unavailable.problem}); "
        f"{fallback.engine.name} on {fallback.spec} runs instead"
    )
    hint = f". To get it: {unavailable.fix}" if unavailable.fix else ""
    warnings.warn(why + hint, FallbackWarning, stacklevel=2)
    return replace(fallback, fallback=why)


def replace_engine(failed: Placement, problem: str) -> Placement | None:
    """Fall back to Paddle on the CPU from an engine that failed; ``None`` if that has failed.

    A `FallbackWarning` is issued.

    Raises:
        EngineUnavailableError: The CPU cannot run it, either.
    """
    instead = BuildSpec(Device("cpu"), "fp32", failed.spec.threads)
    if (failed.engine.name, failed.spec) == (FALLBACK_ENGINE, instead):
        return None
    engine = require_engine(FALLBACK_ENGINE, instead)
    why = (
        f"{failed.engine.name} on {failed.spec} failed while it ran ({problem}); "
        f"{FALLBACK_ENGINE} on {instead} runs instead"
    )
    warnings.warn(why, FallbackWarning, stacklevel=2)
    return Placement(engine, instead, why)


def take_safer_precision(failed: Placement, problem: str) -> Placement | None:
    """Fall back to the same engine in its next safer precision; ``None`` if it has none.

    A `FallbackWarning` is issued.
    """
    for precision in PRECISIONS[failed.spec.precision].safer:
        instead = replace(failed.spec, precision=precision)
        try:
            engine = require_engine(failed.engine.name, instead)
        except EngineUnavailableError:
            continue
        # What is slower than float32 is only taken from another that is.
        if engine.supports(instead).slower and not engine.supports(failed.spec).slower:
            continue
        why = (
            f"{engine.name} on {failed.spec} is not safe ({problem}); "
            f"{engine.name} on {instead} runs instead"
        )
        warnings.warn(why, FallbackWarning, stacklevel=2)
        reasons = ". ".join(filter(None, (failed.fallback, why)))
        return replace(failed, engine=engine, spec=instead, fallback=reasons)
    return None


def _choose_nearest(asked: BuildSpec) -> Placement:
    """Choose the CPU's best engine in the precision asked for, if for a CPU, or in float32."""
    if asked.device.kind == "cpu" and asked.precision != "fp32":
        try:
            return _choose(replace(asked, options={}), {}, slower=False)
        except EngineUnavailableError:
            pass  # The warning says why what was asked for cannot run.
    return _choose(BuildSpec(Device("cpu"), "fp32", asked.threads), {})


def _choose(
    asked: BuildSpec, options: Mapping[str, Mapping[str, Any]], *, slower: bool = True
) -> Placement:
    passed_over: dict[str, str] = {}
    installable: dict[str, str] = {}
    for name in AUTO_ORDER[asked.device.kind]:
        spec = replace(asked, options=options.get(name, {}))
        try:
            engine = require_engine(name, spec)
        except EngineUnavailableError as error:
            passed_over[name] = error.problem
            if error.fix:
                installable[name] = error.fix
            continue
        if slower or not (reason := engine.supports(spec).slower):
            return Placement(engine, spec, passed_over=passed_over, installable=installable)
        passed_over[name] = reason
    reasons = "; ".join(dict.fromkeys(passed_over.values()))
    raise EngineUnavailableError(f"no engine can: {reasons}")


def require_engine(name: str, spec: BuildSpec) -> Engine:
    """Create an engine that can build for a spec here.

    Raises:
        EngineUnavailableError: It cannot; the message says why.
        ConfigError: There is no engine of this name.
    """
    engine = create_engine(name)
    engine.require_build(spec)
    return engine
