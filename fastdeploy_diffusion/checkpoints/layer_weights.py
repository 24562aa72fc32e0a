"""Loads weights into Paddle layers; the only file of this room that uses Paddle."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdeploy_diffusion.errors import CheckpointError

if TYPE_CHECKING:
    import paddle

    from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource

_LISTED = 20  # names that a message shows of each kind, beside their count


def build_layer(make: Callable[[], paddle.nn.Layer], source: TensorSource) -> paddle.nn.Layer:
    """Make a layer directly from weights: its random initialisation is never computed or stored.

    Args:
        make: Constructs the layer, for example ``lambda: UNet2DConditionModel(config)``.

    Returns:
        The layer with its weights, in evaluation mode.

    Raises:
        CheckpointError: As ``load_weights``.
    """
    layer = build_skeleton(make)
    load_weights(layer, source)
    return layer


def build_skeleton(make: Callable[[], paddle.nn.Layer]) -> paddle.nn.Layer:
    """Make a layer whose parameters have shapes but no values, and take no memory.

    Returns:
        The layer in evaluation mode: good for tracing, not for running.
    """
    # Here, so that reading a checkpoint needs no Paddle.
    from fastdeploy_diffusion.paddle_runtime import eager_mode, paddle

    with eager_mode(), paddle.LazyGuard():
        layer = make()
        layer.eval()
    return layer


def load_weights(layer: paddle.nn.Layer, source: TensorSource) -> None:
    """Set every parameter and persistent buffer of a layer, one tensor in memory at a time.

    Names must agree one for one. ``paddle.nn.Linear`` keeps its weight as [in, out], so those are
    transposed; every other tensor has the checkpoint's layout.

    Args:
        layer: May have been made under ``paddle.LazyGuard``.
        source: Its weights in PyTorch's layout.

    Raises:
        CheckpointError: Tensors are missing, unexpected or of another shape; the layer is then
            unchanged. Or a tensor cannot be read.
    """
    check_weights(layer, source)
    set_parameters(layer, source.read)


def set_parameters(layer: paddle.nn.Layer, read: Callable[[str], np.ndarray]) -> None:
    """Set every parameter and persistent buffer of a layer, one tensor in memory at a time.

    Args:
        layer: May have been made under ``paddle.LazyGuard``.
        read: Returns a tensor by its name in the layer, in PyTorch's layout.
    """
    from fastdeploy_diffusion.paddle_runtime import eager_mode, find_linear_weights

    parameters: dict[str, Any] = layer.state_dict()
    linear_weights = find_linear_weights(layer)
    # Largest first: the copies that a tensor needs on its way add to what is loaded already.
    for name in sorted(parameters, key=lambda name: prod(parameters[name].shape), reverse=True):
        value = read(name)
        with eager_mode():
            parameters[name].set_value(
                np.ascontiguousarray(value.T if name in linear_weights else value)
            )


def list_shapes(layer: paddle.nn.Layer) -> dict[str, tuple[int, ...]]:
    """List every parameter and persistent buffer of a layer with its shape in PyTorch's layout."""
    from fastdeploy_diffusion.paddle_runtime import find_linear_weights

    linear_weights = find_linear_weights(layer)
    return {
        name: tuple(parameter.shape)[::-1] if name in linear_weights else tuple(parameter.shape)
        for name, parameter in layer.state_dict().items()
    }


def check_weights(layer: paddle.nn.Layer, source: TensorSource) -> None:
    """Refuse weights whose names and shapes are not those of a layer, which may have no values.

    Raises:
        CheckpointError: Lists what is missing, unexpected or of another shape.
    """
    shapes = list_shapes(layer)
    missing = [name for name in shapes if name not in source]
    unexpected = [name for name in source if name not in shapes]
    misshapen = [
        f"{name}: {source.shape(name)} in the checkpoint, {shape} in the model"
        for name, shape in shapes.items()
        if name in source and source.shape(name) != shape
    ]
    problems = [
        f"{len(names)} {kind}:" + "".join(f"\n    {name}" for name in names[:_LISTED])
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{source.origin} does not fit {type(layer).__name__} with {len(shapes)} tensors\n  "
            + "\n  ".join(problems),
            fix="the config must be that of these weights; a checkpoint of another family or a "
            "half-finished download also ends here",
        )
