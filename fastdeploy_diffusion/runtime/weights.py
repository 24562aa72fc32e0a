"""The weights of a program, as engines bind them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.recipe import FloatArray, Weight, derive
from fastdeploy_diffusion.runtime.weight_store import BoundWeights


def bind_weights(
    program: Program, weights: Mapping[str, Weight], *, is_mapped: bool = False
) -> BoundWeights:
    """Read weights by name, in PyTorch's layout, copied only for another layout or type.

    Args:
        weights: With their derivations and types.
        is_mapped: Whether the program's store is to keep large ones that are only moved, too.

    Returns:
        Contiguous arrays: they may lie on a mapped file, or on the layer's own memory. Values
        beyond float16's range are infinite in it.

    Raises:
        CheckpointError: One cannot be read.
        EngineError: One is made by an operation that is not registered.
    """
    if program.store is not None:
        bound: BoundWeights = program.store.bind(weights, program.tensors, is_mapped=is_mapped)
        return bound
    tensors = _LayerTensors(program.layer) if program.tensors is None else program.tensors
    return BoundWeights({name: derive(weight, tensors) for name, weight in weights.items()})


def read_weights(program: Program, weights: Mapping[str, Weight]) -> Mapping[str, np.ndarray]:
    """Read the arrays of `bind_weights`, by name."""
    return bind_weights(program, weights).arrays


class _LayerTensors:
    """The parameters of a layer, in its own layout; the recipe of its export transposes them."""

    def __init__(self, layer: Any) -> None:
        self._parameters = dict(layer.named_parameters())

    def read(self, name: str) -> FloatArray:
        array: Any = np.from_dlpack(self._parameters[name].detach())
        return np.asarray(array)

    read_stored = read
