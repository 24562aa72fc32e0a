"""What every layer pass is tested with."""

import numpy as np
from drawn_parameters import draw_parameters

from fastdeploy_diffusion.paddle_runtime import paddle
from fastdeploy_diffusion.passes.base import apply_passes
from fastdeploy_diffusion.runtime.recipe import Weight, derive


class LayerTensors:
    """A layer's weights in PyTorch's layout, as a checkpoint would give them."""

    def __init__(self, layer):
        self._weights = {name: weight.numpy() for name, weight in layer.state_dict().items()}
        for name, part in layer.named_sublayers(include_self=True):
            if isinstance(part, paddle.nn.Linear):
                self._weights[f"{name}.weight".lstrip(".")] = part.weight.numpy().T

    def read(self, name):
        return self._weights[name]

    read_stored = read


def rewrite(make, layer, *passes):
    """Apply passes to a new layer like ``layer``; give it with its weights, and the results.

    Those are drawn first, into ``layer``, so that none is like another.
    """
    draw_parameters(layer)
    rewritten = make()
    rewritten.eval()
    results, derivations = apply_passes(passes, rewritten, strict=True)
    tensors = LayerTensors(layer)
    linear = {
        f"{name}.weight".lstrip(".")
        for name, part in rewritten.named_sublayers(include_self=True)
        if isinstance(part, paddle.nn.Linear)
    }
    for name, parameter in rewritten.state_dict().items():
        value = derive(Weight(derivations.get(name, name)), tensors)
        parameter.set_value(np.ascontiguousarray(value.T if name in linear else value))
    return rewritten, results


def relative_error(ours, reference):
    ours, reference = ours.numpy(), reference.numpy()
    return np.abs(ours - reference).max() / np.abs(reference).max()
