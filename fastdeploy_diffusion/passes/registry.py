"""The layer passes by name, and which of them an engine gets where nobody chooses."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.passes.base import LayerPass
from fastdeploy_diffusion.passes.hoist_invariants import HoistInvariants
from fastdeploy_diffusion.passes.merge_projections import MergeKV, MergeQKV
from fastdeploy_diffusion.passes.phase_upsample import PhaseUpsample
from fastdeploy_diffusion.suggest import did_you_mean

# In the order in which they are applied.
_PASSES: Mapping[str, type[LayerPass]] = MappingProxyType(
    {each.name: each for each in (MergeQKV, MergeKV, PhaseUpsample, HoistInvariants)}
)

# Only what was measured to pay on an engine is its default: see docs/passes.md.
_DEFAULTS: Mapping[str, tuple[str, ...]] = MappingProxyType({})


def pass_names() -> tuple[str, ...]:
    """Name the layer passes that this version has."""
    return tuple(_PASSES)


def choose_passes(names: Sequence[str] | None, engine: str) -> list[LayerPass]:
    """Make passes, in the order in which they are applied.

    Args:
        names: Which; ``None`` for those that pay on the engine.
        engine: Name of the engine.

    Raises:
        ConfigError: There is no pass of a name.
    """
    wanted = _DEFAULTS.get(engine, ()) if names is None else names
    for name in wanted:
        if name not in _PASSES:
            raise ConfigError(
                f"there is no pass {name!r}",
                allowed=", ".join(_PASSES),
                fix=did_you_mean(name, _PASSES),
            )
    return [make() for name, make in _PASSES.items() if name in wanted]
