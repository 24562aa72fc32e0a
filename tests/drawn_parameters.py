"""Every parameter of a layer drawn at random: also biases, and the gains of norms.

New layers have biases of zero and gains of one, and with those nobody sees that two biases changed
places, that a gain is not applied, or that a norm took the weights of its neighbour.
"""

from math import prod
from typing import Any

import numpy as np

from fastdeploy_diffusion.paddle_runtime import paddle

# Their rows are taken, not multiplied: their numbers need no scale.
_EMBEDDINGS = ("token_embedding", "position_embedding", "shared", "relative_attention_bias")


def draw_parameters(layer: paddle.nn.Layer, seed: int = 0) -> None:
    """Give a layer of Paddle random weights, the same for the same seed."""
    random = np.random.default_rng(seed)
    linear = {
        f"{name}.weight".lstrip(".")
        for name, part in layer.named_sublayers(include_self=True)
        if isinstance(part, paddle.nn.Linear)
    }
    for name, parameter in layer.named_parameters():
        # Paddle's Linear holds [in, out], all others [out, in, …].
        shape = parameter.shape[::-1] if name in linear else parameter.shape
        values = draw_values(random, name, shape)
        parameter.set_value(np.ascontiguousarray(values.T if name in linear else values))


def draw_reference_parameters(module: Any, seed: int = 0, scale: float = 1.0) -> None:
    """Give a torch module random weights, the same for the same seed.

    With a small ``scale``, of all but gains, norms get activations of little variance: only there
    does it matter which epsilon is added to it.
    """
    import torch  # tests of engines do without it

    random = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            values = draw_values(random, name, tuple(parameter.shape))
            is_gain = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(torch.from_numpy(values) * (1 if is_gain else scale))


def vary_vectors(module: Any, seed: int = 0) -> None:
    """Give a new torch module biases and gains near those it has, all different.

    Its matrices stay, and with them the size of its results.
    """
    import torch  # tests of engines do without it

    random = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                values = 0.1 * random.standard_normal(tuple(parameter.shape))
                parameter.add_(torch.from_numpy(values.astype(np.float32)))


def draw_values(
    random: np.random.Generator, name: str, shape: tuple[int, ...] | list[int]
) -> np.ndarray:
    """Draw one parameter in PyTorch's layout, so that nothing vanishes or grows on the way."""
    values = random.standard_normal(shape)
    if len(shape) > 1:
        if not any(f"{each}.weight" in name for each in _EMBEDDINGS):
            values /= np.sqrt(prod(shape[1:]))
    elif name.endswith("bias"):
        values *= 0.3
    else:  # the gain of a norm
        values = random.uniform(0.5, 1.5, shape)
    return values.astype(np.float32)
