"""Convolutions of an exported graph as matrix products of patches, for weights in int8.

OpenVINO multiplies numbers in floating point with weights that stay in int8 in matrix products
alone. Of a convolution's weight it makes float32 when it compiles, and packs a copy of that: twice
the memory of a weight in float32. So a convolution is a product of the patches that it reads, which
gives the same numbers but for rounding.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx_ir as ir

from fastdeploy_diffusion.export.quantized_layers import Product, find_products

# Patches of one picture are at most as many numbers as this many times the weight, or they would
# take the memory that is to be saved: VAEs and the largest feature maps of UNets keep convolutions.
_MOST = 2


def multiply_patches(model: ir.Model, weights: Collection[str], skip: Collection[str]) -> list[str]:
    """Replace convolutions, in place, where patches take less memory than the weight.

    Their weights are [out, height · width · in] in the graph then, as ``patches`` derives them.

    Args:
        weights: Names of inputs that are bound when the graph is loaded.
        skip: Names of layers that stay.

    Returns:
        Names of the layers that are replaced.
    """
    sizes = _infer_sizes(model)
    replaced = []
    for product in find_products(model.graph, weights):
        if product.layer not in skip and _pays(product, sizes):
            _replace(model.graph, product, sizes)
            replaced.append(product.layer)
    return replaced


def _infer_sizes(model: ir.Model) -> dict[str, list[int]]:
    """Infer the sizes of all values by name; free ones are -1."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True).graph
    return {
        each.name: [
            size.dim_value if size.HasField("dim_value") else -1
            for size in each.type.tensor_type.shape.dim
        ]
        for each in (*graph.input, *graph.value_info, *graph.output)
    }


def _pays(product: Product, sizes: dict[str, list[int]]) -> bool:
    node, is_plain = product.node, not product.path
    if node.op_type != "Conv" or not is_plain:
        return False
    outputs, (height, width) = _get_size(product.weight)[0], _find_area(node, sizes)
    is_dense = _read(node, "group", 1) == 1 and set(_read(node, "dilations", [1])) == {1}
    return is_dense and 0 < height * width <= _MOST * outputs and min(height, width) > 0


def _find_area(node: ir.Node, sizes: dict[str, list[int]]) -> list[int]:
    """Find height and width of a convolution's output; of free sizes nothing is known."""
    return sizes.get(str(node.outputs[0].name), [])[2:] or [-1, -1]


def _replace(graph: ir.Graph, product: Product, sizes: dict[str, list[int]]) -> None:
    node, weight = product.node, product.weight
    outputs, inputs, *kernel = _get_size(weight)
    area, strides = _find_area(node, sizes), _read(node, "strides", [1, 1])
    top, left, bottom, right = _read(node, "pads", [0, 0, 0, 0])

    def add(operator: str, values: list[ir.Value | None], **attributes: Any) -> ir.Value:
        made = ir.node(operator, values, attributes)
        graph.insert_before(node, made)
        return made.outputs[0]

    def constant(numbers: list[int]) -> ir.Value:
        return add("Constant", [], value=ir.tensor(np.array(numbers, np.int64)))

    value = add("Transpose", [node.inputs[0]], perm=[0, 2, 3, 1])
    if top or left or bottom or right:
        value = add("Pad", [value, constant([0, top, left, 0, 0, bottom, right, 0])])
    steps = constant(strides)
    shifted = []
    for place in np.ndindex(*kernel):
        ends = [
            start + (size - 1) * step + 1
            for start, size, step in zip(place, area, strides, strict=True)
        ]
        bounds = [constant(list(place)), constant(ends), constant([1, 2]), steps]
        shifted.append(add("Slice", [value, *bounds]))
    patches = add("Concat", [*shifted], axis=3) if len(shifted) > 1 else shifted[0]
    weight.shape = ir.Shape([outputs, inputs * int(np.prod(kernel))])
    # Were the patches reshaped to a matrix, OpenVINO would make float32 of this weight, too.
    result = add("MatMul", [patches, add("Transpose", [weight], perm=[1, 0])])
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        result = add("Add", [result, node.inputs[2]])
    made = add("Transpose", [result], perm=[0, 3, 1, 2])
    (output,) = node.outputs
    made.name, output.name = output.name, None
    made.type, made.shape = output.type, output.shape
    ir.convenience.replace_all_uses_with(output, made, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _get_size(weight: ir.Value) -> list[int]:
    assert weight.shape is not None  # weights have fixed shapes
    return list(weight.shape.numpy())


def _read(node: ir.Node, name: str, default: Any) -> Any:
    found = node.attributes.get(name)
    return default if found is None else found.value
