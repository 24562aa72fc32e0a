"""The weights of a program, as engines bind them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastdeploy_diffusion.program import Program


def read_weights(program: Program, names: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Give parameters by name, in PyTorch's layout, copied only where the layout asks for it.

    Args:
        program: The network.
        names: Which of them.

    Returns:
        Contiguous float32 arrays, to be read only: they may lie on a mapped file, or on the layer's
        own memory.

    Raises:
        CheckpointError: One cannot be read.
    """
    read = program.read_weight or _reader(program.layer)
    return {name: np.asarray(read(name), order="C") for name in names}


def _reader(layer: Any) -> Callable[[str], np.ndarray]:
    from fastdeploy_diffusion.paddle_runtime import paddle

    parameters = dict(layer.named_parameters())
    linear_weights = {
        f"{name}.weight".lstrip(".")
        for name, part in layer.named_sublayers(include_self=True)
        if isinstance(part, paddle.nn.Linear)
    }

    def read(name: str) -> np.ndarray:
        array = np.from_dlpack(parameters[name].detach())
        return array.T if name in linear_weights else array

    return read
