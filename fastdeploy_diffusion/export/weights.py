"""The weights of a program, as engines bind them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastdeploy_diffusion.program import Program
from fastdeploy_diffusion.runtime.recipe import FloatArray, Weight, derive


def read_weights(program: Program, weights: Mapping[str, Weight]) -> dict[str, np.ndarray]:
    """Give weights by name, in PyTorch's layout, copied only for another layout or type.

    Args:
        program: The network.
        weights: Which, what they are made of, and what type they are wanted in.

    Returns:
        Contiguous arrays, to be read only: they may lie on a mapped file, or on the layer's own
        memory. What is beyond float16 is infinite in it.

    Raises:
        CheckpointError: One cannot be read.
        EngineError: One is made by an operation that is not registered.
    """
    tensors = _LayerTensors(program.layer) if program.tensors is None else program.tensors
    return {name: derive(weight, tensors) for name, weight in weights.items()}


class _LayerTensors:
    """The parameters that a layer itself holds."""

    def __init__(self, layer: Any) -> None:
        from fastdeploy_diffusion.paddle_runtime import find_linear_weights

        self._parameters = dict(layer.named_parameters())
        self._transposed = find_linear_weights(layer)

    def read(self, name: str) -> FloatArray:
        array: Any = np.from_dlpack(self._parameters[name].detach())
        return np.asarray(array.T if name in self._transposed else array)

    read_stored = read
