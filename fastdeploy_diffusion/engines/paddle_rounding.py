"""Rounds a Paddle layer to half precision, computed in float32: what the precision itself does."""

from __future__ import annotations

from typing import Any


def round_layer(layer: Any, dtype: str) -> None:
    """Round the weights of a layer in place, and from now on the values between its parts.

    Parts with weights of their own (linears, convolutions, norms) get rounded inputs, and every
    part gives rounded outputs, blocks too, so that what they add up is rounded. In between, it
    computes in float32, as half-precision hardware accumulates. Buffers stay as they are: engines
    keep angles and positions exact.

    Args:
        dtype: ``float16`` or ``bfloat16``.
    """
    from fastdeploy_diffusion.paddle_runtime import eager_mode, paddle

    with eager_mode(), paddle.no_grad():
        for parameter in layer.parameters():
            parameter.set_value(_round(parameter, dtype))
    for part in layer.sublayers():
        if not any(part.children()) and part.parameters():
            part.register_forward_pre_hook(lambda _, inputs: _round(inputs, dtype))
        part.register_forward_post_hook(lambda _, inputs, outputs: _round(outputs, dtype))


def _round(values: Any, dtype: str) -> Any:
    """Round tensors of float32, in any tuples; what is of another type stays."""
    from fastdeploy_diffusion.paddle_runtime import paddle

    if isinstance(values, paddle.Tensor):
        return values.astype(dtype).astype("float32") if values.dtype == paddle.float32 else values
    if isinstance(values, list | tuple):
        rounded = [_round(each, dtype) for each in values]
        return type(values)(*rounded) if hasattr(values, "_fields") else type(values)(rounded)
    return values
