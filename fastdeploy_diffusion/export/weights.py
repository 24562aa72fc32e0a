"""The weights of a program, as engines bind them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastdeploy_diffusion.program import Program


def read_weights(program: Program, types: Mapping[str, str]) -> Mapping[str, np.ndarray]:
    """Give parameters by name, in PyTorch's layout, copied only for another layout or type.

    Args:
        program: The network.
        types: Which of them, and by name numpy's type: ``float32``, ``float16`` or ``bfloat16``,
            which is that of ml_dtypes.

    Returns:
        Contiguous arrays, to be read only: they may lie on a mapped file, or on the layer's own
        memory. What is beyond float16 is infinite in it.

    Raises:
        CheckpointError: One cannot be read.
    """
    read = program.read_weight or _reader(program.layer)
    if "bfloat16" in types.values():
        import ml_dtypes  # noqa: F401  # numpy knows the type by its name from here on
    with np.errstate(over="ignore"):  # the check of outputs finds infinities, and names them
        return {name: np.asarray(read(name), dtype, order="C") for name, dtype in types.items()}


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
