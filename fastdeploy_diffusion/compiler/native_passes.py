"""Selection of passes by whether what they make can be compiled."""

from collections.abc import Sequence

from fastdeploy_diffusion.engines.placement import Placement
from fastdeploy_diffusion.passes.contract import AnyPass


def keep_compilable(passes: Sequence[AnyPass], placement: Placement) -> tuple[AnyPass, ...]:
    """Drop the passes whose operators cannot be compiled for a placement here."""
    if not any(each.is_native for each in passes):
        return tuple(passes)  # looking for a compiler takes time
    is_refused = bool(placement.engine.refuse_native(placement.spec))
    return tuple(each for each in passes if not (is_refused and each.is_native))
