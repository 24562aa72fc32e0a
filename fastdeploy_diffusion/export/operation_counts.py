"""Floating-point operations and memory traffic of a network, counted in its traced graph."""

import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.export.weightless import trace_without_weights
from fastdeploy_diffusion.runtime.program import Program

Shape = tuple[int, ...]


@dataclass(frozen=True)
class OperationCounts:
    """The cost of one run, on any engine.

    Args:
        flops: Floating-point operations of matrix products and convolutions, two for each
            multiplication with its addition; the rest is not counted.
        elements: Numbers in inputs, weights and outputs, which cross the memory at least once;
            intermediate results may stay in the processor.
    """

    flops: int
    elements: int


def count_operations(program: Program, shapes: Mapping[str, Shape]) -> OperationCounts:
    """Trace a layer, with or without values, for inputs of some shapes, and count.

    Raises:
        EngineError: The layer cannot be traced, or has an operator without a rule to count.
    """
    inputs = tuple(replace(each, shape=shapes[each.name]) for each in program.inputs)
    with tempfile.TemporaryDirectory(prefix="fastdeploy-diffusion-") as folder:
        path = Path(folder) / "traced.json"
        trace_without_weights(replace(program, inputs=inputs), path)
        graph = json.loads(path.read_text(encoding="utf-8"))
    (block,) = graph["program"]["regions"][0]["blocks"]
    return _Counter(program.name).count(block["ops"])


class _Counter:
    """Reads the operators of a PIR program in order."""

    def __init__(self, component: str) -> None:
        self._component = component
        self._shapes: dict[int, Shape] = {}

    def count(self, operators: Sequence[Mapping[str, Any]]) -> OperationCounts:
        flops = elements = 0
        used = {each["%"] for operator in operators for each in operator["I"]}
        for operator in operators:
            outputs = self._read_outputs(operator)
            name = operator["#"].partition(".")[2]
            if name in _COUNTED:
                flops += 2 * _COUNTED[name](operator, self._find_inputs(operator), outputs[0])
            elif _LOOKS_EXPENSIVE.search(name):
                raise EngineError(
                    f"{self._component}: the operations of {name!r} cannot be counted",
                    allowed=", ".join(_COUNTED),
                )
            elif name == "data" and operator["O"][0]["%"] in used:
                elements += prod(outputs[0])
            elif name == "fetch":
                elements += prod(self._find_inputs(operator)[0])
        return OperationCounts(flops, elements)

    def _read_outputs(self, operator: Mapping[str, Any]) -> list[Shape]:
        found = []
        for output in operator["O"]:
            kind = output["TT"]
            if kind["#"] == "0.t_dtensor":
                self._shapes[output["%"]] = tuple(kind["D"][1])
                found.append(self._shapes[output["%"]])
        return found

    def _find_inputs(self, operator: Mapping[str, Any]) -> list[Shape]:
        shapes = [self._shapes.get(each["%"], ()) for each in operator["I"]]
        if any(size < 0 for shape in shapes for size in shape):
            raise EngineError(f"{self._component}: {operator['#']} has no fixed shape: {shapes}")
        return shapes


def _count_product(operator: Mapping[str, Any], inputs: list[Shape], output: Shape) -> int:
    attributes = {each["N"]: each["AT"].get("D") for each in operator["A"]}
    left = inputs[0]
    depth = left[-2] if attributes.get("transpose_x") and len(left) > 1 else left[-1]
    return prod(output) * depth


def _count_convolution(operator: Mapping[str, Any], inputs: list[Shape], output: Shape) -> int:
    return prod(output) * prod(inputs[1][1:])  # (out, in / groups, height, width)


def _count_transposed(operator: Mapping[str, Any], inputs: list[Shape], output: Shape) -> int:
    return prod(inputs[0]) * prod(inputs[1][1:])  # (in, out / groups, height, width)


# Multiplications by operator.
_COUNTED: Mapping[str, Callable[[Mapping[str, Any], list[Shape], Shape], int]] = {
    "matmul": _count_product,
    "bmm": _count_product,
    "conv2d": _count_convolution,
    "depthwise_conv2d": _count_convolution,
    "conv2d_transpose": _count_transposed,
}
_LOOKS_EXPENSIVE = re.compile(r"conv|matmul|attn|attention|gemm|addmm|linear|einsum|^mv$|^dot$")
