"""What was measured on this machine: every way to run a component, and how fast it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from fastdeploy_diffusion.engines.cache import ArtifactCache
from fastdeploy_diffusion.engines.cache_entry import CacheEntry, CacheKey
from fastdeploy_diffusion.engines.placement import AUTO


@dataclass(frozen=True)
class Candidate:
    """One way to run a component.

    Args:
        engine: Name of the engine.
        precision: Its precision.
        passes: Names of the passes.
        seconds: Of one run, the median; ``None`` if it was not measured.
        relative_error: Largest difference from the Paddle float32 layer, relative to the layer's
            largest output; ``None`` if it was not measured.
        refusal: Why it was not measured; empty if it was.
    """

    engine: str
    precision: str
    passes: tuple[str, ...] = ()
    seconds: float | None = None
    relative_error: float | None = None
    refusal: str = ""

    def __str__(self) -> str:
        extra = f" with {', '.join(self.passes)}" if self.passes else ""
        return f"{self.engine} in {self.precision}{extra}"


@dataclass(frozen=True)
class UnsafePrecision:
    """A precision in which an engine gave a component's outputs wrong.

    Args:
        engine: Name of the engine.
        precision: The precision.
        reason: What happened.
    """

    engine: str
    precision: str
    reason: str


@dataclass(frozen=True)
class ComponentPlan:
    """What ``tune`` found for a component, and what its runs have shown since.

    Args:
        component: Its name.
        shapes: Of the inputs that were fed, by name.
        candidates: Every way that was tried.
        unsafe: What is not used any more, however fast it is.
    """

    component: str
    shapes: Mapping[str, tuple[int, ...]]
    candidates: tuple[Candidate, ...]
    unsafe: tuple[UnsafePrecision, ...] = ()

    def find_unsafe(self, engine: str, precision: str) -> str:
        """Say what happened to an engine in a precision; nothing if it has not failed."""
        reasons = (
            each.reason
            for each in self.unsafe
            if (each.engine, each.precision) == (engine, precision)
        )
        return next(reasons, "")

    def choose(
        self, precision: str, passes: Sequence[str] | None, *, engine: str = AUTO
    ) -> Candidate | None:
        """Give the fastest way that is safe; ``None`` if nothing was measured.

        Args:
            precision: What was asked for; ``auto`` for any.
            passes: Names of the passes that were asked for; ``None`` for any.
            engine: The engine that was asked for; ``auto`` for any.
        """
        measured = [
            each
            for each in self.candidates
            if each.seconds is not None
            and precision in (AUTO, each.precision)
            and engine in (AUTO, each.engine)
            and passes in (None, each.passes)
            and not self.find_unsafe(each.engine, each.precision)
        ]
        return min(measured, key=lambda each: each.seconds or 0.0, default=None)

    def explain(self, chosen: Candidate, precision: str = "") -> dict[str, str]:
        """Say of every other way why it was not taken.

        Args:
            chosen: What was taken.
            precision: What was asked for, of which alone it is said; ``auto`` for any, and what was
                taken if left out.
        """
        return {
            str(each): each.refusal
            or self.find_unsafe(each.engine, each.precision)
            or f"{(each.seconds or 0) * 1e3:.3g} ms, "
            f"{(each.seconds or 0) / (chosen.seconds or 1):.2f} times as long"
            for each in self.candidates
            if each != chosen and (precision or chosen.precision) in (AUTO, each.precision)
        }


def keep_plan(
    cache: ArtifactCache, key: CacheKey, plan: ComponentPlan, model: str = ""
) -> ComponentPlan:
    """Keep a plan in place of an earlier one, of which stays what real requests have shown.

    Args:
        cache: Where.
        key: The plan's key.
        plan: The plan.
        model: What people call the model.

    Returns:
        What is kept: with what the earlier one knows to be unsafe, too.

    Raises:
        CacheError: The cache cannot be written.
    """
    with cache.lock(key) as slot:
        earlier = _read(slot.find())
        if earlier:
            plan = replace(plan, unsafe=tuple(dict.fromkeys((*earlier.unsafe, *plan.unsafe))))
        slot.keep_record(asdict(plan), model)
    return plan


def remember_unsafe(
    cache: ArtifactCache,
    key: CacheKey,
    component: str,
    unsafe: UnsafePrecision,
    model: str = "",
) -> None:
    """Note in a component's plan, which is made if there is none, what is not safe.

    Args:
        cache: Where.
        key: The plan's key.
        component: Name of the component.
        unsafe: Precisions that failed here.
        model: What people call the model.

    Raises:
        CacheError: The cache cannot be written.
    """
    with cache.lock(key) as slot:
        plan = _read(slot.find()) or ComponentPlan(component, {}, ())
        if unsafe not in plan.unsafe:
            slot.keep_record(asdict(replace(plan, unsafe=(*plan.unsafe, unsafe))), model)


def find_plan(cache: ArtifactCache, key: CacheKey) -> ComponentPlan | None:
    """Give the plan of a key, if one was kept."""
    with cache.read(key) as entry:
        return _read(entry)


def _read(entry: CacheEntry | None) -> ComponentPlan | None:
    if entry is None:
        return None
    kept = entry.record
    return ComponentPlan(
        kept["component"],
        {name: tuple(shape) for name, shape in kept["shapes"].items()},
        tuple(
            Candidate(**{**each, "passes": tuple(each["passes"])}) for each in kept["candidates"]
        ),
        tuple(UnsafePrecision(**each) for each in kept["unsafe"]),
    )
