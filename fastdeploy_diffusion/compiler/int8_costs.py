"""The ranges of a component's layers in int8, and what each block costs, kept in the cache.

They do not depend on the quality that is asked for: with another one, nothing is measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastdeploy_diffusion.compiler.cache_key import make_plan_key
from fastdeploy_diffusion.compiler.calibration import Calibration, Show, tell
from fastdeploy_diffusion.int8_report import BlockCost
from fastdeploy_diffusion.quantization import Quantization

if TYPE_CHECKING:
    from fastdeploy_diffusion.compiler.int8_part import Part
    from fastdeploy_diffusion.runtime.cache import ArtifactCache

_MEASURES = "fastdeploy_diffusion.compiler.int8_part"


def find_ranges(
    part: Part, recorded: Calibration, cache: ArtifactCache, show: Show, *, symmetric: bool
) -> None:
    """Find the ranges of a part's layers: kept ones, or measure them.

    Args:
        recorded: The calls that decide them.
        symmetric: Whether they reach as far below zero as above.

    Raises:
        CacheError: What was recorded is damaged, or the folder cannot be written.
        EngineError: The component does not load.
    """

    def measure() -> dict[str, Any]:
        feeds = tell(show, f"{part.name}: ranges of what layers read", recorded, part.name)
        return Quantization(part.trials.observe(feeds, symmetric=symmetric)).describe()

    kept = _recall(part, [recorded.digest, symmetric], cache, measure)
    part.set_ranges(Quantization.parse(kept).ranges)


def find_costs(part: Part, cache: ArtifactCache, show: Show) -> None:
    """Find the cost of each block of a part whose ranges are set; as `find_ranges`."""

    def measure() -> dict[str, Any]:
        part.measure_costs(show)
        return {"blocks": [asdict(each) for each in part.blocks]}

    measured = [part.held_out.digest, Quantization(part.ranges).digest]
    kept = _recall(part, measured, cache, measure)
    part.blocks = [BlockCost(**each) for each in kept["blocks"]]


def _recall(
    part: Part, measured: list[Any], cache: ArtifactCache, measure: Callable[[], dict[str, Any]]
) -> Mapping[str, Any]:
    """Return what is kept of the same measurement, or what is measured now."""
    build = part.trials.build
    spec = build.placement.spec
    identity = {
        "network": build.network.identify(cache.root),
        "passes": [each.identify() for each in build.passes],
        "weight_bits": spec.weight_bits,
        "measured": measured,
    }
    engines, kind = [build.placement.engine], f"{part.name}, int8"
    key = make_plan_key(engines, spec.device, kind, identity, (__name__, _MEASURES), spec.target)
    with cache.lock(key) as slot:
        if kept := slot.find():
            return kept.record
        found = measure()
        slot.keep_record(found, part.component.network.model)
        return found
