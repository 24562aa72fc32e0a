"""The passes that other distributions register: their names, without importing anything."""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

GROUP = "fastdeploy_diffusion.passes"


def find_pass_entry_points() -> Mapping[str, tuple[EntryPoint, ...]]:
    """Read the entry points of installed distributions.

    Returns:
        By the name of the pass, in alphabetical order; several if distributions register the same
        name.
    """
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for each in sorted(
        entry_points(group=GROUP), key=lambda each: (each.name, describe_distribution(each))
    ):
        found[each.name] = (*found.get(each.name, ()), each)
    return found


def describe_distribution(entry_point: EntryPoint) -> str:
    """Name the distribution of an entry point and its version: ``acme-passes 1.2``."""
    distribution = entry_point.dist
    return f"{distribution.name} {distribution.version}" if distribution else "no distribution"
