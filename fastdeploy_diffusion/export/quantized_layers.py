"""The convolutions and linear layers of an exported graph that int8 may compute."""

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

import onnx_ir as ir

PRODUCTS = ("Conv", "MatMul")
"""The operators that int8 may compute."""
_WEIGHT = ".weight"
# On the way from a weight to its product; engines fold them when they load.
_LEADS = frozenset({"Identity", "Slice", "Transpose"})


class Product(NamedTuple):
    """A convolution, or a matrix product with a weight.

    Args:
        layer: The weight's name without ``.weight``.
        node: The operator, whose first input is computed.
        weight: The graph's input or initializer, [out, in, …].
        path: The operators that lead from the weight to the product, in order.
    """

    layer: str
    node: ir.Node
    weight: ir.Value
    path: tuple[ir.Node, ...]


def find_products(graph: ir.Graph, weights: Collection[str]) -> list[Product]:
    """Find the products whose weights nothing else reads, in the order of the graph.

    Args:
        weights: Names of the inputs or initializers that are bound when the graph is loaded.
    """
    found = []
    for node in graph:
        if node.op_type not in PRODUCTS:
            continue
        path: list[ir.Node] = []
        value = node.inputs[1]
        while value is not None and (lead := value.producer()) and lead.op_type in _LEADS:
            path.insert(0, lead)
            value = lead.inputs[0]
        if value is None or value.producer() is not None or value.name not in weights:
            continue
        name = str(value.name)
        if name.endswith(_WEIGHT):
            found.append(Product(name.removesuffix(_WEIGHT), node, value, tuple(path)))
    products = Counter(each.weight for each in found)
    return [each for each in found if _count_readers(each.weight) == products[each.weight]]


def _count_readers(value: ir.Value) -> int:
    """Count the operators that read a weight, behind those that lead on."""
    return sum(
        _count_readers(node.outputs[0]) if node.op_type in _LEADS else 1 for node, _ in value.uses()
    )
