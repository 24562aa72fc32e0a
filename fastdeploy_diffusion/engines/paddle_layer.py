"""One run of a Paddle layer, operator by operator in float32: the reference of every build."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastdeploy_diffusion.errors import EngineError

if TYPE_CHECKING:
    import numpy as np

    from fastdeploy_diffusion.runtime.program import Program


def run_layer(program: Program, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a program's layer once, without gradients.

    Args:
        feeds: Every input, in the order of ``program.inputs``.

    Returns:
        The outputs by name.

    Raises:
        EngineError: The layer does not return as many tensors as the program names.
    """
    from fastdeploy_diffusion.paddle_runtime import eager_mode, paddle

    with eager_mode(), paddle.no_grad():
        layer: Any = program.layer
        returned: Any = layer(*(paddle.to_tensor(array) for array in feeds.values()))
        tensors = [returned] if isinstance(returned, paddle.Tensor) else list(returned)
        if len(tensors) != len(program.outputs):
            raise EngineError(
                f"{program.name}: the network returns {len(tensors)} tensors",
                allowed=", ".join(spec.name for spec in program.outputs),
            )
        return {
            spec.name: tensor.numpy() for spec, tensor in zip(program.outputs, tensors, strict=True)
        }
