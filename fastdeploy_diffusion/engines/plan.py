"""Tuning plans: every way to run a component, and how fast it was on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from fastdeploy_diffusion.engines.placement import AUTO
from fastdeploy_diffusion.precision import FLOATS
from fastdeploy_diffusion.runtime.cache import ArtifactCache
from fastdeploy_diffusion.runtime.cache_entry import CacheEntry, CacheKey


@dataclass(frozen=True)
class Candidate:
    """One way to run a component.

    Args:
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
    """A precision in which an engine gave a component's outputs wrong."""

    engine: str
    precision: str
    reason: str


@dataclass(frozen=True)
class LeftOutPass:
    """A default pass with which an engine's build of a component failed in a precision."""

    engine: str
    precision: str
    name: str
    reason: str


@dataclass(frozen=True)
class ComponentPlan:
    """The measurements of ``tune`` for a component, and failures of its builds and runs.

    Args:
        shapes: Of the inputs that were fed, by name.
        unsafe: Precisions that are not used any more, however fast they are.
        left_out: Default passes that are not applied any more.
    """

    component: str
    shapes: Mapping[str, tuple[int, ...]]
    candidates: tuple[Candidate, ...]
    unsafe: tuple[UnsafePrecision, ...] = ()
    left_out: tuple[LeftOutPass, ...] = ()

    def find_unsafe(self, engine: str, precision: str) -> str:
        """Look up how an engine failed in a precision; empty if it did not."""
        reasons = (
            each.reason
            for each in self.unsafe
            if (each.engine, each.precision) == (engine, precision)
        )
        return next(reasons, "")

    def choose(
        self, precision: str, passes: Sequence[str] | None, *, engine: str = AUTO
    ) -> Candidate | None:
        """Choose the fastest safe candidate; ``None`` if nothing was measured.

        Args:
            precision: ``auto`` for any.
            passes: ``None`` for any.
            engine: ``auto`` for any.
        """
        measured = [
            each
            for each in self.candidates
            if each.seconds is not None
            and (precision == each.precision or (precision == AUTO and each.precision in FLOATS))
            and engine in (AUTO, each.engine)
            and passes in (None, each.passes)
            and not self.find_unsafe(each.engine, each.precision)
        ]
        return min(measured, key=lambda each: each.seconds or 0.0, default=None)

    def explain(self, chosen: Candidate, precision: str = "") -> dict[str, str]:
        """Explain why each other candidate was not chosen.

        Args:
            precision: Limits the list to one precision; ``auto`` for any, and that of ``chosen``
                if left out.
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
    """Keep a plan in place of an earlier one, whose failures are carried over.

    Returns:
        The kept plan, with the earlier one's unsafe precisions and passes that were left out.

    Raises:
        CacheError: The cache cannot be written.
    """
    with cache.lock(key) as slot:
        earlier = _read(slot.find())
        if earlier:
            plan = _add_failures(plan, earlier.unsafe, earlier.left_out)
        slot.keep_record(asdict(plan), model)
    return plan


def remember_failures(
    cache: ArtifactCache,
    key: CacheKey,
    component: str,
    *,
    unsafe: Sequence[UnsafePrecision] = (),
    left_out: Sequence[LeftOutPass] = (),
    model: str = "",
) -> None:
    """Record unsafe precisions or passes in a component's plan, which is made if there is none.

    Raises:
        CacheError: The cache cannot be written.
    """
    with cache.lock(key) as slot:
        plan = _read(slot.find()) or ComponentPlan(component, {}, ())
        if (added := _add_failures(plan, unsafe, left_out)) != plan:
            slot.keep_record(asdict(added), model)


def _add_failures(
    plan: ComponentPlan, unsafe: Sequence[UnsafePrecision], left_out: Sequence[LeftOutPass]
) -> ComponentPlan:
    return replace(
        plan,
        unsafe=tuple(dict.fromkeys((*plan.unsafe, *unsafe))),
        left_out=tuple(dict.fromkeys((*plan.left_out, *left_out))),
    )


def find_plan(cache: ArtifactCache, key: CacheKey) -> ComponentPlan | None:
    """Look up the plan of a key, if one was kept."""
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
        tuple(LeftOutPass(**each) for each in kept["left_out"]),
    )
