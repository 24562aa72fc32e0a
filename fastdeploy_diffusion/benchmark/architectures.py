"""Published models without their weights: the configs alone, from which networks can be made."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from typing import Any

from fastdeploy_diffusion.checkpoints import build_skeleton, list_shapes
from fastdeploy_diffusion.families.family import Family
from fastdeploy_diffusion.families.networks.network_kind import NetworkKind
from fastdeploy_diffusion.families.registry import FAMILIES


@dataclass(frozen=True)
class Architecture:
    """A published model without its weights."""

    family: Family
    configs: Mapping[str, Mapping[str, Any]]
    dtype: str

    def sketch(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """List the shape of each network's tensors, in their order; takes no memory."""
        return {
            name: list_shapes(build_skeleton(partial(_make, kind, self.configs[name])))
            for name, kind in self.family.networks.items()
        }

    @cached_property
    def parameters(self) -> int:
        """Parameters of all networks together."""
        networks = self.sketch().values()
        return sum(prod(shape) for shapes in networks for shape in shapes.values())


def _make(kind: NetworkKind, config: Mapping[str, Any]) -> Any:
    return kind.make(kind.config.from_dict(config))


ARCHITECTURES: Mapping[str, Architecture] = {
    name: Architecture(family, *published)
    for family in FAMILIES.values()
    for name, published in family.published.items()
}
