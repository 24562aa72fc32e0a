"""Stages with their functions, and the layers that are built of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from paddle import Tensor, nn

from fastdeploy_diffusion.runtime.program import Signature, TensorSpec
from fastdeploy_diffusion.runtime.stages import Stage, name_value
from fastdeploy_diffusion.size_range import SizeRange

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class LayerStage(Stage):
    """A stage of a Paddle layer.

    Args:
        compute: Maps inputs to outputs, given the layer first; or a block, where there are blocks.
        parts: Those of the layer that it uses, by their paths; one may be ``None``.
        blocks: The layer's list of blocks that it runs.
        draw: Generators of check inputs that are not standard normal, by name.
    """

    compute: Callable[..., Any]
    parts: tuple[str, ...] = ()
    blocks: str = ""
    draw: Mapping[str, Draw] = field(default_factory=dict)


class StageLayer(nn.Layer):
    """Neighbouring stages of a network as one layer, with the network's parts and their names.

    Args:
        stages: In order. Of blocks it has as many as a stage repeats.
        signature: The names of its inputs and outputs.
    """

    def __init__(self, network: Any, stages: Sequence[LayerStage], signature: Signature) -> None:
        super().__init__()
        self.stages, self.signature = tuple(stages), signature
        for stage in stages:
            for path in stage.parts:
                _place(self, network, path)
            if stage.blocks:
                blocks = list(getattr(network, stage.blocks))[: stage.repeats]
                setattr(self, stage.blocks, nn.LayerList(blocks))

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        """Run the stages.

        Args:
            *inputs: Those of the signature. Then, to run with these instead of its own, every
                weight in the order of ``named_parameters``, in PyTorch's layout (the weight of a
                linear layer is [out, in]).
        """
        names, outputs = ([spec.name for spec in specs] for specs in self.signature)
        values = dict(zip(names, inputs, strict=False))
        with _lend(self, inputs[len(names) :]):
            for stage in self.stages:
                for layer in getattr(self, stage.blocks) if stage.blocks else (self,):
                    given = stage.compute(layer, *(values[spec.name] for spec in stage.inputs))
                    tensors = given if isinstance(given, tuple | list) else (given,)
                    for spec, tensor in zip(stage.outputs, tensors, strict=True):
                        values[name_value(spec.name)] = tensor
        return [values[name_value(name)] for name in outputs]


def _place(layer: nn.Layer, network: Any, path: str) -> None:
    """Give a layer a part of a network under the same path, in empty layers where it is inside."""
    *outer, name = path.split(".")
    for each in outer:
        network = getattr(network, each)
        if not hasattr(layer, each):
            setattr(layer, each, nn.Layer())
        layer = getattr(layer, each)
    setattr(layer, name, getattr(network, name))


def take_stage(
    network: Any, name: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> StageLayer:
    """Build the layer of one stage of a network, of the specs of its inputs and outputs.

    Of a list of blocks, it is the first.
    """
    stages = {stage.name: stage for stage in network.list_stages(inputs, outputs)}
    stage = replace(stages[name], repeats=1)
    return StageLayer(network, [stage], Signature(stage.inputs, stage.outputs))


def fix_rows(spec: TensorSpec, rows: int) -> TensorSpec:
    """Fix the batch of a spec."""
    return replace(spec, shape=(rows, *spec.shape[1:]))


def free_rows(spec: TensorSpec) -> TensorSpec:
    """Lower the bounds of a batch to one row, for each row is conditioned by itself."""
    batch, *sizes = spec.shape
    if not isinstance(batch, SizeRange):
        return spec
    return replace(spec, shape=(replace(batch, min=1, opt=1), *sizes))


@contextmanager
def _lend(layer: nn.Layer, weights: tuple[Tensor, ...]) -> Iterator[None]:
    """Replace a layer's weights by given ones, if any."""
    own = [
        (part, key, parameter)
        for part in layer.sublayers(include_self=True)
        for key, parameter in part._parameters.items()
        if parameter is not None
    ]
    try:
        for (part, key, _), given in zip(own, weights, strict=bool(weights)):
            is_transposed = isinstance(part, nn.Linear) and key == "weight"
            part._parameters[key] = given.transpose([1, 0]) if is_transposed else given
        yield
    finally:
        for part, key, parameter in own:
            part._parameters[key] = parameter
