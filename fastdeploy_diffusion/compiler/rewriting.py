"""A network rewritten by passes: its layer, and the recipe of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastdeploy_diffusion.checkpoints.layer_weights import set_parameters
from fastdeploy_diffusion.passes.base import LayerPass, apply_passes
from fastdeploy_diffusion.runtime.pass_result import PassResult
from fastdeploy_diffusion.runtime.recipe import MadeOf, Weight, derive, replace_names

if TYPE_CHECKING:
    from fastdeploy_diffusion.predictors.network import Network


@dataclass(frozen=True)
class RewrittenNetwork:
    """A network rewritten by passes.

    Args:
        recipe: The derivation of each weight of the layer from tensors of the checkpoint.
    """

    network: Network
    layer: Any
    recipe: Mapping[str, MadeOf]
    results: list[PassResult]

    def load(self) -> Any:
        """Load the values of the rewritten layer."""
        source = self.network.source
        set_parameters(self.layer, lambda name: derive(Weight(self.recipe[name]), source))
        return self.layer


def rewrite_network(network: Network, passes: Sequence[LayerPass]) -> RewrittenNetwork:
    """Apply passes to a network without values.

    Raises:
        PassError: A pass did not do what the model's config promises.
    """
    layer = network.sketch()
    results, derivations = apply_passes(passes, layer, strict=True)
    recipe = {
        name: replace_names(derivations.get(name, name), network.find_tensor)
        for name in layer.state_dict()
    }
    return RewrittenNetwork(network, layer, recipe, results)
