"""Which operators of an exported graph run in half precision, and which stay in float32.

An operator runs in half precision if it is known to be safe there; all others stay in float32:

* Norms (InstanceNormalization, of which group norms are made, LayerNormalization, and the sums over
  axes of which both can be made): a mean of thousands of values, and squares, which overflow fp16
  from 256 on.
* Operators between a norm and the next product: scale and shift, and SiLU. Each rounding in between
  costs bf16 a part of its 8 bits, and no product gains by it.
* Angles: operators that lead to a sine or cosine. Around timestep 999, numbers are 0.5 apart in
  fp16, and 4 in bf16.
* Exp, Pow, Sqrt and sums over axes: they overflow fp16, or add up rounding errors.
* Operators that have not been examined yet.

Softmax is safe. Its numbers fit: the largest is subtracted before the exponential, and a
sum over tokens is at most their number. ONNX Runtime's CUDA kernel sums in float32; for TensorRT's,
which does not say, the proof on its own machine decides. Integers and truth values, and with them
shapes, are not touched.
"""

from collections.abc import Mapping

import onnx_ir as ir

# They only move values, rounded or not.
MOVES = frozenset(
    {
        *("Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice"),
        *("Split", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze"),
    }
)
HALF_OPERATORS = MOVES | {
    *("Add", "Conv", "Div", "Erf", "Gelu", "Gemm", "MatMul", "Max", "Min", "Mul", "Neg", "Relu"),
    *("Sigmoid", "Softmax", "Sub", "Tanh", "Where"),
}
PRODUCTS = frozenset({"Conv", "MatMul"})
NORMS = frozenset({"InstanceNormalization", "LayerNormalization", "ReduceL2", "ReduceMean"})
NORM_FOLLOWERS = MOVES | {"Add", "Cast", "Max", "Mul", "Pow", "Sigmoid"}
ANGLE_READERS = frozenset({"Cos", "Sin"})
# All others return the type of their first input, or of the one named here.
_TYPE_GIVERS: Mapping[str, int] = {"OneHot": 2, "Where": 1}
_NEVER_FLOAT = frozenset(
    {
        *("And", "ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN"),
        *("Less", "LessOrEqual", "NonZero", "Not", "Or", "Shape", "Size"),
    }
)


def find_half_nodes(
    nodes: list[ir.Node], floats: set[ir.Value], computed: set[ir.Value]
) -> set[ir.Node]:
    """Find the operators that run in half precision, by `find_floats` and `find_computed`."""
    islands = _find_angles(nodes) | _find_norms(nodes, computed & floats)
    return {
        node
        for node in nodes
        if node.op_type in HALF_OPERATORS
        and node not in islands
        and any(value in floats for value in node.outputs)
    }


def find_floats(graph: ir.Graph) -> set[ir.Value]:
    """Find the float32 values: exports leave out the types between operators."""
    given = [*graph.inputs, *graph.initializers.values()]
    floats = {value for value in given if value.dtype == ir.DataType.FLOAT}
    for node in graph:
        if node.op_type == "Constant":
            is_float = node.attributes["value"].as_tensor().dtype == ir.DataType.FLOAT
        elif node.op_type == "Cast":
            is_float = node.attributes["to"].as_int() == ir.DataType.FLOAT.value
        elif node.op_type in _NEVER_FLOAT:
            is_float = False
        else:
            is_float = node.inputs[_TYPE_GIVERS.get(node.op_type, 0)] in floats
        if is_float:
            floats.update(node.outputs)
    return floats


def find_computed(graph: ir.Graph, weights: frozenset[str]) -> set[ir.Value]:
    """Find the values that depend on the inputs' numbers, not on weights, constants and sizes."""
    computed = {value for value in graph.inputs if value.name not in weights}
    for node in graph:
        if node.op_type != "Shape" and any(value in computed for value in node.inputs):
            computed.update(node.outputs)
    return computed


def _find_norms(nodes: list[ir.Node], computed: set[ir.Value]) -> set[ir.Node]:
    """Find the norms, and operators that read nothing but their results and weights."""
    normed: set[ir.Value] = set()
    found: set[ir.Node] = set()
    for node in nodes:
        read = {value for value in node.inputs if value in computed}
        if node.op_type in NORMS or (node.op_type in NORM_FOLLOWERS and read and read <= normed):
            found.add(node)
            normed.update(node.outputs)
    return found


def _find_angles(nodes: list[ir.Node]) -> set[ir.Node]:
    """Find the operators that lead to a sine or cosine."""
    found: set[ir.Node] = set()
    wanted = [node for node in nodes if node.op_type in ANGLE_READERS]
    while wanted:
        node = wanted.pop()
        if node not in found:
            found.add(node)
            wanted.extend(node.predecessors())
    return found
