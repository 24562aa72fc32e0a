"""The operators of Paddle that Paddle2ONNX converts rightly, and the repair of their attributes.

Paddle2ONNX kills the process on an unknown operator, without naming it, and silently converts some
known ones wrongly. So the right ones are listed here: each was compared with the layer on an
engine. Facts of paddle2onnx 2.1.0.
"""

import json
from collections.abc import Iterator
from typing import Any

from fastdeploy_diffusion.errors import EngineError

EXPORTABLE = frozenset(
    {
        "add",
        "arange",
        "argmax",
        "assign_value_",
        "cast",
        "clip",
        "concat",
        "conv2d",
        "cos",
        "data",
        "divide",
        "embedding",
        "equal",
        "exp",
        "expand",
        "fetch",
        "flatten",
        "full",
        "full_int_array",
        "full_like",
        "gather",
        "gelu",
        "group_norm",
        "layer_norm",
        "logical_not",
        "matmul",
        "mean",
        "multiply",
        "nearest_interp",
        "one_hot",
        "pad3d",
        "relu",
        "reshape",
        "scale",
        "shape64",
        "sigmoid",
        "silu",
        "sin",
        "slice",
        "softmax",
        "split_with_num",
        "squeeze",
        "sqrt",
        "stack",
        "subtract",
        "tanh",
        "transpose",
        "triu",
        "unsqueeze",
        "where",
    }
)
"""Operators of Paddle's dialect, by their names in PIR."""

# They keep their double attributes; of all others, Paddle2ONNX reads those as floats, and gets
# garbage (an epsilon of GroupNorm that differs from run to run).
_DOUBLE_READERS = frozenset({"assign_value_", "data", "full", "full_int_array", "full_like"})
_DIALECT = "1."


def repair_for_onnx(component: str, graph: str) -> str:
    """Make a saved graph safe for Paddle2ONNX.

    Args:
        graph: The text of a PIR ``.json`` file.

    Returns:
        The text with single-precision attributes where Paddle2ONNX expects them.

    Raises:
        EngineError: The graph has operators that it is not known to convert rightly; they are
            named.
    """
    parsed = json.loads(graph)
    operators = list(_operators(parsed))
    if refused := sorted({name for each in operators if (name := _refuse(each))}):
        raise EngineError(
            f"{component}: {', '.join(refused)} cannot be exported to ONNX",
            allowed=", ".join(sorted(EXPORTABLE)),
            fix="write the layer with these operators, or run it on the paddle engine",
        )
    for each in operators:
        if _name(each) not in _DOUBLE_READERS:
            for attribute in each.get("A", ()):
                _shorten(attribute)
    return json.dumps(parsed, separators=(",", ":"))


def _operators(node: Any) -> Iterator[dict[str, Any]]:
    """Iterate over every operator, also of blocks inside operators."""
    if isinstance(node, dict):
        if "I" in node and "O" in node and str(node.get("#", "")).startswith(_DIALECT):
            yield node
        for value in node.values():
            yield from _operators(value)
    elif isinstance(node, list):
        for value in node:
            yield from _operators(value)


def _name(operator: dict[str, Any]) -> str:
    return str(operator["#"]).removeprefix(_DIALECT)


def _refuse(operator: dict[str, Any]) -> str:
    """Name an operator that cannot be exported, with the reason; empty if it can."""
    name = _name(operator)
    if name not in EXPORTABLE:
        return name
    attributes = {each["N"]: each["AT"].get("D") for each in operator.get("A", ())}
    if name == "gelu" and attributes.get("approximate"):
        return "gelu with approximate=True (it would become the exact one: write it with tanh)"
    return ""


def _shorten(node: Any) -> None:
    if isinstance(node, dict):
        if node.get("#") == "0.a_f64":
            node["#"] = "0.a_f32"
        for value in node.values():
            _shorten(value)
    elif isinstance(node, list):
        for value in node:
            _shorten(value)
