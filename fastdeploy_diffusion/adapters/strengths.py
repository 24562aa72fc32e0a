"""How much adapters count: one number, or numbers by parts of the model."""

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

from fastdeploy_diffusion.errors import AdapterError
from fastdeploy_diffusion.shown import show
from fastdeploy_diffusion.suggest import did_you_mean

Strength: TypeAlias = float | Mapping[str, float]
"""One number, or numbers by beginnings of layers' names: ``{"unet.mid_block": 0.5}``.

The longest beginning decides; of other layers ``"default"``, which is 1 if it is left out.
"""
DEFAULT = "default"
_LARGEST = 100.0


def check_strength(strength: object, layers: Collection[str]) -> Strength:
    """Check a strength for an adapter.

    Args:
        layers: Names of the layers that it changes, with their components before them.

    Raises:
        AdapterError: It is no number, or names a part that the adapter does not change.
    """
    if not isinstance(strength, Mapping):
        return _check_number(strength, "a strength")
    checked = {}
    for part, number in strength.items():
        if part != DEFAULT and not any(_begins(name, part) for name in layers):
            parts = sorted(
                {".".join(name.split(".")[:depth]) for name in layers for depth in (1, 2)}
            )
            raise AdapterError(
                f"a strength is given for {show(part)}, of which the adapter changes nothing",
                allowed=f"{DEFAULT}, {', '.join(parts)}, and names that begin like these",
                fix=did_you_mean(part, parts),
            )
        checked[part] = _check_number(number, f"the strength of {part}")
    return checked


def find_strength(strength: Strength, layer: str) -> float:
    """Find the number that counts for a layer, whose name has its component before it."""
    if not isinstance(strength, Mapping):
        return strength
    parts = [part for part in strength if part != DEFAULT and _begins(layer, part)]
    return strength[max(parts, key=len)] if parts else strength.get(DEFAULT, 1.0)


def _begins(name: str, part: object) -> bool:
    return isinstance(part, str) and (name == part or name.startswith(f"{part}."))


def _check_number(number: Any, what: str) -> float:
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if is_number and abs(number) <= _LARGEST:  # which NaN is not
        return float(number)
    raise AdapterError(
        f"{what} is {show(number)}",
        allowed=f"a number of {-_LARGEST:g} to {_LARGEST:g}; mostly 0 to 1",
    )
