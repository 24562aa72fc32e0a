"""What each block of a component costs in int8, kept in the cache.

It does not depend on the quality that is asked for: with another one, no block is measured again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastdeploy_diffusion.compiler.cache_key import make_plan_key
from fastdeploy_diffusion.compiler.calibration import Calibration, Show, tell
from fastdeploy_diffusion.int8_report import BlockCost
from fastdeploy_diffusion.quantization import Quantization

if TYPE_CHECKING:
    from pathlib import Path

    from fastdeploy_diffusion.compiler.int8_part import Part
    from fastdeploy_diffusion.runtime.cache import ArtifactCache
    from fastdeploy_diffusion.runtime.cache_entry import CacheKey

_MEASURES = "fastdeploy_diffusion.compiler.int8_part"


def find_costs(
    part: Part,
    recorded: Calibration,
    held_out: Calibration,
    cache: ArtifactCache,
    show: Show,
    *,
    symmetric: bool,
) -> None:
    """Find the ranges of a part's layers and the cost of each block: kept ones, or measure them.

    Args:
        recorded: The calls that decide the ranges.
        held_out: Those on which costs are measured.
        symmetric: Whether ranges reach as far below zero as above.

    Raises:
        CacheError: What was recorded is damaged, or the folder cannot be written.
        EngineError: The component does not load.
    """
    name = part.name
    key = _make_key(part, [recorded.digest, held_out.digest, symmetric], cache.root)
    with cache.lock(key) as slot:
        if kept := slot.find():
            _restore(part, kept.record)
            return
        feeds = tell(show, f"{name}: ranges of what layers read", recorded, name)
        part.ranges = part.trials.observe(feeds, symmetric=symmetric)
        part.measure_costs(list(held_out.feeds(name)), show)
        part.close()  # the next component is measured alone
        slot.keep_record(_describe(part), part.component.network.model)


def _make_key(part: Part, measured: list[Any], root: Path) -> CacheKey:
    build = part.trials.build
    spec = build.placement.spec
    identity = {
        "network": build.network.identify(root),
        "passes": [each.identify() for each in build.passes],
        "weight_bits": spec.weight_bits,
        "measured": measured,
    }
    engines, kind = [build.placement.engine], f"{part.name}, int8"
    code = (__name__, _MEASURES)
    return make_plan_key(engines, spec.device, kind, identity, code, spec.target)


def _describe(part: Part) -> dict[str, Any]:
    quantization = Quantization(part.ranges)
    blocks = [asdict(each) for each in part.blocks]
    return {"quantization": quantization.describe(), "blocks": blocks}


def _restore(part: Part, record: Mapping[str, Any]) -> None:
    part.ranges = Quantization.parse(record["quantization"]).ranges
    part.blocks = [BlockCost(**each) for each in record["blocks"]]
