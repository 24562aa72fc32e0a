"""An exported graph with switches: each layer in floating point and in int8, side by side.

An input has a number for each block of layers, 0 or 1, and the layers of a block give what their
int8 variant gives where it is 1. So what each block changes is measured with one graph, which is
compiled once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fastdeploy_diffusion.export.int8 import declare_like, quantize_graph, round_weights
from fastdeploy_diffusion.export.quantized_layers import Product, find_products
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.quantization import Quantization, Range
from fastdeploy_diffusion.runtime.manifest import GRAPH_FILE, check_manifest, write_manifest
from fastdeploy_diffusion.runtime.program import Program, TensorSpec

SWITCHES = "int8_switches"
_VARIANT = ".int8"  # ends the name of a layer's second variant


def add_switches(
    program: Program,
    directory: Path,
    blocks: Sequence[Mapping[str, Range]],
    weight_bits: int,
    dialect: Dialect = Dialect.STANDARD,
) -> Program:
    """Add an int8 variant of some layers to an export, in place.

    Args:
        directory: As for `quantize_export`.
        blocks: The layers that are switched together, with the ranges of what they read.
        weight_bits: As for `quantize_export`.
        dialect: The engine's.

    Returns:
        The program with the input ``int8_switches``, float32, a number for each block.

    Raises:
        EngineError: The export is damaged, or another program's.
    """
    weights = check_manifest(program, directory)
    path = directory / GRAPH_FILE
    model = ir.load(path)
    graph = model.graph
    places = {layer: place for place, layers in enumerate(blocks) for layer in layers}
    spec = TensorSpec(SWITCHES, (len(blocks),), "float32")
    switches = ir.Value(
        name=SWITCHES, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(spec.open_shape)
    )
    graph.inputs.append(switches)
    adding = _Adding(graph, switches)
    for product in find_products(graph, weights):
        if product.layer in places:
            adding.add(product, places[product.layer])
    for layer in places:
        weights[f"{layer}{_VARIANT}.weight"] = weights[f"{layer}.weight"]
    ranges = {
        f"{layer}{_VARIANT}": numbers for layers in blocks for layer, numbers in layers.items()
    }
    graph.sort()
    rounded = quantize_graph(graph, weights.keys(), Quantization(ranges), dialect=dialect)
    round_weights(model, weights, rounded, weight_bits)
    ir.save(model, path)
    switched = replace(program, inputs=(*program.inputs, spec))
    write_manifest(switched, directory, [GRAPH_FILE], weights)
    return switched


class _Adding:
    """Adds the second variants of layers, and what chooses between both."""

    def __init__(self, graph: ir.Graph, switches: ir.Value) -> None:
        self._graph = graph
        self._switches = switches
        self._weights: dict[ir.Value, ir.Value] = {}
        self._conditions: dict[int, ir.Value] = {}

    def add(self, product: Product, place: int) -> None:
        """Add a variant of a product, which is still in floating point."""
        node = product.node
        (given,) = node.outputs
        weight = self._copy_weight(product)
        for each in product.path:
            weight = self._add(each.op_type, [weight, *each.inputs[1:]], each)
        variant = self._add(node.op_type, [node.inputs[0], weight, *node.inputs[2:]], node)
        chosen = self._add("Where", [self._find_condition(place), variant, given])
        chosen.dtype = _get_type(product.weight)
        users = [use for use in given.uses() if use.node is not chosen.producer()]
        for user, index in users:
            user.replace_input_with(index, chosen)
        if given.is_graph_output():
            given.name, chosen.name = None, given.name
            outputs = self._graph.outputs
            outputs[outputs.index(given)] = chosen

    def _copy_weight(self, product: Product) -> ir.Value:
        """Declare the weight once more, to be bound in int8."""
        weight = product.weight
        if weight not in self._weights:
            kind = _get_type(weight)
            name = f"{product.layer}{_VARIANT}.weight"
            copy = ir.Value(name=name, type=ir.TensorType(kind), shape=weight.shape)
            stored = weight.const_value
            if isinstance(stored, ir.ExternalTensor):
                copy.const_value = declare_like(stored, copy, kind)
                self._graph.register_initializer(copy)
            else:
                self._graph.inputs.append(copy)
            self._weights[weight] = copy
        return self._weights[weight]

    def _find_condition(self, place: int) -> ir.Value:
        """Read a switch: one for all layers of a block."""
        if place not in self._conditions:
            index, half = (
                self._add("Constant", [], value=ir.tensor(np.array(each)))
                for each in (np.int64(place), np.float32(0.5))
            )
            switch = self._add("Gather", [self._switches, index])
            self._conditions[place] = self._add("Greater", [switch, half])
        return self._conditions[place]

    def _add(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        like: ir.Node | None = None,
        **attributes: ir.TensorProtocol,
    ) -> ir.Value:
        """Append an operator, with its own attributes or those of another."""
        if like is not None:
            node = ir.Node("", operator, inputs, list(like.attributes.values()))
        else:
            node = ir.node(operator, inputs, attributes)
        self._graph.append(node)
        return node.outputs[0]


def _get_type(weight: ir.Value) -> ir.DataType:
    assert weight.dtype is not None  # weights are declared with types
    return weight.dtype
