"""What was measured on this machine: every way to run a component, and how fast it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fastdeploy_diffusion.engines.cache import ArtifactCache, CacheKey


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
class ComponentPlan:
    """What ``tune`` found for a component.

    Args:
        component: Its name.
        shapes: Of the inputs that were fed, by name.
        candidates: Every way that was tried.
    """

    component: str
    shapes: Mapping[str, tuple[int, ...]]
    candidates: tuple[Candidate, ...]

    def choose(self, precision: str, passes: Sequence[str] | None) -> Candidate | None:
        """Give the fastest way in a precision; ``None`` if nothing was measured.

        Args:
            precision: What was asked for.
            passes: Names of the passes that were asked for; ``None`` for any.
        """
        measured = [
            each
            for each in self.candidates
            if each.seconds is not None
            and each.precision == precision
            and passes in (None, each.passes)
        ]
        return min(measured, key=lambda each: each.seconds or 0.0, default=None)

    def explain(self, chosen: Candidate) -> dict[str, str]:
        """Say of every other way in the same precision why it was not taken."""
        return {
            str(each): each.refusal
            or f"{each.seconds:.4g} s, {(each.seconds or 0) / (chosen.seconds or 1):.2f} times "
            f"the {chosen.seconds:.4g} s of {chosen}"
            for each in self.candidates
            if each != chosen and each.precision == chosen.precision
        }


def keep_plan(cache: ArtifactCache, key: CacheKey, plan: ComponentPlan) -> None:
    """Keep a plan in place of an earlier one.

    Raises:
        CacheError: The cache cannot be written.
    """
    with cache.lock(key):
        cache.stage(key)
        cache.publish(key, asdict(plan))


def find_plan(cache: ArtifactCache, key: CacheKey) -> ComponentPlan | None:
    """Give the plan of a key, if one was kept."""
    entry = cache.find(key)
    return None if entry is None else _read(entry.proof)


def _read(kept: Mapping[str, Any]) -> ComponentPlan:
    return ComponentPlan(
        kept["component"],
        {name: tuple(shape) for name, shape in kept["shapes"].items()},
        tuple(
            Candidate(**{**each, "passes": tuple(each["passes"])}) for each in kept["candidates"]
        ),
    )
