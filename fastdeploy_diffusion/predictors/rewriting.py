"""A network as passes leave it: its layer, and its weights under their new names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.checkpoints import set_parameters
from fastdeploy_diffusion.passes.base import Derivation, LayerPass, apply_passes
from fastdeploy_diffusion.passes.contract import PassResult
from fastdeploy_diffusion.predictors.network import Network


@dataclass(frozen=True)
class RewrittenNetwork:
    """What passes made of a network.

    Args:
        network: The network as it was.
        layer: Rewritten, without values.
        derivations: The new weights, and what they are made of.
        results: What each pass did.
    """

    network: Network
    layer: Any
    derivations: dict[str, Derivation]
    results: list[PassResult]

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """Read one weight by its name in the rewritten layer, float32, in PyTorch's layout."""
        if name in self.derivations:
            return self.derivations[name].read(self.network.read)
        return self.network.read(name)

    def load(self) -> Any:
        """Give the rewritten layer its values."""
        set_parameters(self.layer, self.read)
        return self.layer


def rewrite_network(network: Network, passes: Sequence[LayerPass]) -> RewrittenNetwork:
    """Apply passes to a network without values.

    Raises:
        PassError: A pass did not do what the model's config promises.
    """
    layer = network.sketch()
    results, derivations = apply_passes(passes, layer, strict=True)
    return RewrittenNetwork(network, layer, derivations, results)
