"""The weights of a layer, as engines bind them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastdeploy_diffusion.program import Program


def read_weights(program: Program, names: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Give a layer's parameters by name, without copying them.

    Args:
        program: The network.
        names: Which of them.

    Returns:
        Arrays on the layer's own memory: to be read, and only while the layer lives or the array
        does.
    """
    layer: Any = program.layer
    parameters = dict(layer.named_parameters())
    return {name: np.from_dlpack(parameters[name].detach()) for name in names}
