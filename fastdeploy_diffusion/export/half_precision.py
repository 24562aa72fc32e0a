"""Conversion of an exported float32 graph to fp16 or bf16.

Inputs and outputs keep their types. Between operators in half precision and those that
`half_rules` leaves in float32 stand casts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fastdeploy_diffusion.export.half_rules import (
    MOVES,
    PRODUCTS,
    find_computed,
    find_floats,
    find_half_nodes,
)
from fastdeploy_diffusion.precision import PRECISIONS


def convert_to_half(
    path: Path, weights: Sequence[str], precision: str, *, float32_kernels: bool = False
) -> dict[str, str]:
    """Rewrite a graph in place.

    Args:
        path: The ``.onnx`` file, without weights.
        weights: Names of its inputs or external initializers that are bound when it is loaded.
        float32_kernels: For a runtime without kernels for half precision: operators compute in
            float32, and what goes from one to the next is rounded to half precision, a product
            once it has its bias.

    Returns:
        By name, numpy's type of the weights that are to be bound in half precision; the others,
        which only float32 operators read, stay as they are.
    """
    model = ir.load(path)
    _hold_tensors(model.graph)
    rewriting = _Rewriting(
        model.graph, ir.DataType[PRECISIONS[precision].activations.upper()], float32_kernels
    )
    halved = rewriting.run(frozenset(weights))
    model.graph.sort()
    ir.save(model, path)
    return halved


_BARE_NUMBERS: Mapping[str, type[np.generic]] = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


class _Rewriting:
    def __init__(self, graph: ir.Graph, half: ir.DataType, float32_kernels: bool) -> None:
        self._graph = graph
        self._half = half
        self._float32_kernels = float32_kernels
        # The two forms of a value that was float32: narrowed to half precision, and float32.
        self._narrowed: dict[ir.Value, ir.Value] = {}
        self._widened: dict[ir.Value, ir.Value] = {}
        self._computed: set[ir.Value] = set()

    def run(self, weights: frozenset[str]) -> dict[str, str]:
        nodes = list(self._graph)
        floats = find_floats(self._graph)
        self._computed = find_computed(self._graph, weights)
        half_nodes = find_half_nodes(nodes, floats, self._computed)
        outputs = list(self._graph.outputs)
        halved = self._halve_weights(weights, floats, half_nodes)
        for node in nodes:
            form = self._narrow if node in half_nodes else self._widen
            for index, value in enumerate(node.inputs):
                if value is not None and value in floats:
                    node.replace_input_with(index, form(value))
            if node in half_nodes:
                self._settle(node, [value for value in node.outputs if value in floats])
        for index, value in enumerate(outputs):
            if value in floats:
                self._graph.outputs[index] = _rename(value, self._widen(value))
        self._remove_unread(nodes)
        return halved

    def _halve_weights(
        self, weights: frozenset[str], floats: set[ir.Value], half_nodes: set[ir.Node]
    ) -> dict[str, str]:
        """Narrow the weights that half-precision operators read."""
        halved = {}
        for value in [*self._graph.inputs, *self._graph.initializers.values()]:
            if value.name not in weights or value not in floats:
                continue
            if not any(node in half_nodes for node in value.consumers()):
                continue
            value.dtype = self._half
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _declare(value.const_value, self._half)
            halved[value.name] = self._half.numpy().name
            self._narrowed[value] = value
            if self._float32_kernels:
                self._narrowed[value] = self._cast(value, ir.DataType.FLOAT)
        return halved

    def _settle(self, node: ir.Node, outputs: list[ir.Value]) -> None:
        """Record in which form a half-precision operator returns its results."""
        for value in outputs:
            if not self._float32_kernels:
                value.dtype = self._half
                self._narrowed[value] = value
            elif node.op_type in MOVES or (node.op_type in PRODUCTS and self._gets_bias(value)):
                self._narrowed[value] = self._widened[value] = value
            else:
                self._widened[value] = self._narrow(value)

    def _gets_bias(self, product: ir.Value) -> bool:
        """Tell whether a product is read by its bias sum alone, as a fused kernel would."""
        readers = [node for node, _ in product.uses()]
        return (
            len(readers) == 1
            and readers[0].op_type == "Add"
            and any(
                value is not product and value not in self._computed for value in readers[0].inputs
            )
        )

    def _narrow(self, value: ir.Value) -> ir.Value:
        """Narrow a value to half precision."""
        if value not in self._narrowed:
            producer = value.producer()
            if producer is not None and producer.op_type == "Constant":
                self._narrowed[value] = self._round_constant(producer)
            else:
                narrow = self._cast(value, self._half)
                if self._float32_kernels:
                    narrow = self._cast(narrow, ir.DataType.FLOAT)
                self._narrowed[value] = narrow
        return self._narrowed[value]

    def _widen(self, value: ir.Value) -> ir.Value:
        """Widen a value to float32."""
        if value not in self._widened:
            is_half = value.dtype == self._half
            self._widened[value] = self._cast(value, ir.DataType.FLOAT) if is_half else value
        return self._widened[value]

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        node = ir.node("Cast", [value], {"to": dtype.value})
        node.outputs[0].dtype = dtype
        self._graph.append(node)
        return node.outputs[0]

    def _round_constant(self, producer: ir.Node) -> ir.Value:
        dtype = self._half.numpy()
        values = producer.attributes["value"].as_tensor().numpy()
        # A mask of -1e9 must not become an infinity, which times zero is NaN.
        largest = float(self._half.max)
        finite = np.where(np.isfinite(values), np.clip(values, -largest, largest), values)
        rounded = finite.astype(dtype)
        if self._float32_kernels:
            rounded = rounded.astype(np.float32)
        node = ir.node("Constant", [], {"value": ir.tensor(rounded)})
        node.outputs[0].dtype = ir.DataType.FLOAT if self._float32_kernels else self._half
        self._graph.append(node)
        return node.outputs[0]

    def _remove_unread(self, nodes: list[ir.Node]) -> None:
        for node in nodes:
            if node.op_type == "Constant" and not node.outputs[0].uses():
                self._graph.remove(node, safe=True)


def _hold_tensors(graph: ir.Graph) -> None:
    """Turn constants that passes write as numbers into tensors, as the converter writes them."""
    for node in graph:
        if node.op_type != "Constant":
            continue
        for name, dtype in _BARE_NUMBERS.items():
            if name in node.attributes:
                numbers = np.array(node.attributes.pop(name).value, dtype)
                node.attributes["value"] = ir.AttrTensor("value", ir.tensor(numbers))


def _declare(tensor: ir.ExternalTensor, dtype: ir.DataType) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        tensor.location, None, None, dtype, shape=tensor.shape, name=str(tensor.name)
    )


def _rename(old: ir.Value, new: ir.Value) -> ir.Value:
    """Rename the value that replaces an output after it."""
    if new is not old:
        name, old.name = old.name, f"{old.name}.half"
        new.name = name
    new.shape = old.shape
    return new
