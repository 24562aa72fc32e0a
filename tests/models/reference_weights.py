"""Give a Paddle layer the weights of its torch reference, and compare what they compute."""

import numpy as np
import paddle
import torch
from paddle import nn

# Seeds, and scales of the weights: with a small one, it matters which epsilon a norm adds.
DRAWS = [(0, 1.0), (1, 0.01)]
# Relative; 5e-6 and less were measured, with twelve draws of each.
LARGEST_ERROR = 2e-5


def copy_weights(layer: nn.Layer, reference: torch.nn.Module) -> None:
    """Copy every weight; both must have the same names but for the prefix of a tower."""
    linear = {
        f"{name}.weight" for name, part in layer.named_sublayers() if isinstance(part, nn.Linear)
    }
    weights = {
        name.removeprefix("text_model.").removeprefix("vision_model."): weight.numpy()
        for name, weight in reference.state_dict().items()
    }
    own = layer.state_dict()
    assert own.keys() == weights.keys()
    for name, parameter in own.items():
        # Paddle's Linear holds [in, out].
        weight = weights[name].T if name in linear else weights[name]
        parameter.set_value(np.ascontiguousarray(weight))
    layer.eval()


def relative_error(given: paddle.Tensor, wanted: torch.Tensor) -> float:
    """max |given - wanted| / max |wanted|."""
    given_array, wanted_array = given.numpy(), wanted.detach().numpy()
    assert given_array.shape == wanted_array.shape
    return float(np.abs(given_array - wanted_array).max() / np.abs(wanted_array).max())
