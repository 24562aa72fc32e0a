"""Quantization of an exported graph: convolutions and linear layers in eight bits.

Weights are int8, symmetric, with a scale for each output channel. What a layer reads is uint8, with
one scale and one zero point, which follow from its range; or int8, symmetric, too, for engines that
take nothing else. In the graph, QuantizeLinear and
DequantizeLinear stand around each product, and engines replace them by products of integers.
ONNX Runtime does so for convolutions only if their results are rounded to eight bits, too: for it,
they are ConvInteger, whose results are not. Scales of weights are inputs beside them: both are
derived when the build is loaded.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.export.graph_file import raise_opset
from fastdeploy_diffusion.export.patches import multiply_patches
from fastdeploy_diffusion.export.quantized_layers import PRODUCTS, Product, find_products
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.precision import INT8
from fastdeploy_diffusion.quantization import Quantization, Range
from fastdeploy_diffusion.runtime.manifest import (
    GRAPH_FILE,
    check_manifest,
    read_graph_passes,
    write_manifest,
)
from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.recipe import Derivation, Weight

SCALES = ".scales"
# Since when scales, and what they scale, may be in half precision.
_OPSET_OF_HALF_SCALES = 19


def quantize_export(
    program: Program,
    directory: Path,
    precision: str,
    weight_bits: int,
    dialect: Dialect = Dialect.STANDARD,
    *,
    symmetric: bool = False,
    multiplies_patches: bool = False,
) -> None:
    """Quantize an export in place, as its program says.

    Args:
        directory: With ``graph.onnx`` in float32 or half precision, whose weights are bound when it
            is loaded. Scales have the type of what they scale.
        precision: ``"int8"`` or ``"int8-weights"``.
        weight_bits: Of a weight: 8, or 7, whose products with uint8 add up in pairs within int16.
        dialect: The engine's.
        symmetric: As for `quantize_graph`.
        multiplies_patches: Whether the engine keeps weights alone in int8 in matrix products only:
            convolutions become such, as `multiply_patches`, or stay in floating point.

    Raises:
        EngineError: The program was not calibrated; or the export is damaged, or another program's.
    """
    quantization = program.quantization
    is_whole = precision == INT8
    if quantization is None and is_whole:
        raise EngineError(
            f"{program.name}: it was not calibrated, so that the ranges of its numbers are unknown",
            allowed="bf16, fp16, fp32, or int8-weights, which needs none",
            fix="calibrate it: fastdeploy-diffusion quantize --model FOLDER",
        )
    weights = check_manifest(program, directory)
    path = directory / GRAPH_FILE
    model = ir.load(path)
    quantization = quantization or Quantization()
    with_patches = multiplies_patches and not is_whole
    if with_patches:
        for layer in multiply_patches(model, weights.keys(), quantization.skip):
            weight = weights[f"{layer}.weight"]
            patches = Derivation((weight.made_of,), "patches")
            weights[f"{layer}.weight"] = replace(weight, made_of=patches)
    layers = quantize_graph(
        model.graph,
        weights.keys(),
        quantization,
        weights_only=not is_whole,
        operators=["MatMul"] if with_patches else PRODUCTS,
        dialect=dialect,
        symmetric=symmetric,
    )
    round_weights(model, weights, layers, weight_bits)
    ir.save(model, path)
    results = read_graph_passes(program, directory)
    write_manifest(program, directory, [GRAPH_FILE], weights, results)


def round_weights(
    model: ir.Model, weights: dict[str, Weight], layers: Collection[str], weight_bits: int
) -> None:
    """Let the weights of layers that `quantize_graph` has quantized be bound in int8, with scales.

    Args:
        weights: Of the graph, by name; changed in place.
        weight_bits: As for `quantize_export`.
    """
    for layer in layers:
        made_of, dtype = weights[f"{layer}.weight"].made_of, weights[f"{layer}.weight"].dtype
        rounded, scales = (
            Derivation((made_of,), op, {"bits": weight_bits})
            for op in ("quantize", "quantization-scales")
        )
        weights[f"{layer}.weight"] = Weight(rounded, "int8")
        weights[f"{layer}.weight{SCALES}"] = Weight(scales, dtype)
        if dtype != "float32":
            raise_opset(model, _OPSET_OF_HALF_SCALES)


def quantize_graph(
    graph: ir.Graph,
    weights: Collection[str],
    quantization: Quantization,
    *,
    weights_only: bool = False,
    operators: Collection[str] = PRODUCTS,
    dialect: Dialect = Dialect.STANDARD,
    symmetric: bool = False,
) -> list[str]:
    """Quantize a graph in place.

    Args:
        weights: Names of its inputs or external initializers that are bound when it is loaded.
        weights_only: Whether products are of floating-point numbers, whatever the ranges.
        operators: The products to quantize.
        symmetric: Whether what layers read is int8 around zero: a range counts by its farther end.

    Returns:
        Names of the layers that are quantized.
    """
    ranges, skip = quantization.ranges, quantization.skip
    products = [
        each
        for each in find_products(graph, weights)
        if each.node.op_type in operators
        and each.layer not in skip
        and (weights_only or each.layer in ranges)
    ]
    rewriting = _Rewriting(graph, dialect, symmetric)
    for product in products:
        if weights_only:
            rewriting.quantize_weight(product)
        else:
            rewriting.quantize(product, ranges[product.layer])
    for product in products:
        for node in reversed(product.path):
            if node.graph is graph and not node.outputs[0].uses():
                graph.remove(node, safe=True)
    graph.sort()
    return list(dict.fromkeys(product.layer for product in products))


def choose_scale(numbers: Range) -> tuple[np.float32, np.uint8]:
    """Choose the scale and the zero point of a range, so that zero is exact."""
    low, high = min(numbers.low, 0.0), max(numbers.high, 0.0)
    scale = np.float32(max((high - low) / 255, float(np.finfo(np.float32).tiny)))
    return scale, np.uint8(np.clip(np.rint(-low / scale), 0, 255))


def choose_symmetric_scale(numbers: Range) -> tuple[np.float32, np.int8]:
    """Choose the scale at which 127 steps reach the farther end of a range; zero is 0."""
    farther = max(abs(numbers.low), abs(numbers.high))
    return np.float32(max(farther / 127, float(np.finfo(np.float32).tiny))), np.int8(0)


class _Rounded(NamedTuple):
    """A value in eight bits, its scale and zero point, and its numbers restored."""

    value: ir.Value
    scale: ir.Value
    zero: ir.Value
    restored: ir.Value


class _Rewriting:
    def __init__(self, graph: ir.Graph, dialect: Dialect, symmetric: bool) -> None:
        self._graph = graph
        self._dialect = dialect
        self._choose_scale = choose_symmetric_scale if symmetric else choose_scale
        self._rounded: dict[tuple[ir.Value, Range], _Rounded] = {}
        self._scales: dict[ir.Value, ir.Value] = {}

    def quantize(self, product: Product, numbers: Range) -> None:
        """Quantize what a product reads, and its weight."""
        rounded = self._round(product, numbers)
        if self._dialect is Dialect.MICROSOFT and product.node.op_type == "Conv":
            self._multiply_integers(product, rounded)
            return
        product.node.replace_input_with(0, rounded.restored)
        self.quantize_weight(product)

    def quantize_weight(self, product: Product) -> None:
        restore = self._restore_last if self._dialect is Dialect.MICROSOFT else self._restore_first
        product.node.replace_input_with(1, restore(product))

    def _round(self, product: Product, numbers: Range) -> _Rounded:
        """Round what a product reads to eight bits, and back; once for all that read it."""
        node, value = product.node, product.node.inputs[0]
        assert value is not None  # a product has two inputs
        if (value, numbers) not in self._rounded:
            number, middle = self._choose_scale(numbers)
            kind = _get_type(self._find_scales(product.weight))
            scale = self._constant(number.astype(kind.numpy()), node)
            zero = self._constant(middle, node)
            rounded = self._add("QuantizeLinear", [value, scale, zero], node)
            rounded.dtype = ir.DataType.from_numpy(middle.dtype)
            restored = self._add("DequantizeLinear", [rounded, scale, zero], node)
            restored.dtype = kind
            self._rounded[value, numbers] = _Rounded(rounded, scale, zero, restored)
        return self._rounded[value, numbers]

    def _restore_first(self, product: Product) -> ir.Value:
        """Restore a weight's numbers before all else: so OpenVINO and TensorRT recognize it."""
        scales = self._find_scales(product.weight)
        product.weight.dtype = ir.DataType.INT8
        value = self._add("DequantizeLinear", [product.weight, scales], product.node, _along(0))
        value.dtype = _get_type(scales)
        for node in product.path:
            value = self._add(node.op_type, [value, *node.inputs[1:]], product.node, _copy(node))
            value.dtype = _get_type(scales)
        return value

    def _restore_last(self, product: Product) -> ir.Value:
        """Restore a weight's numbers just before its product: so ONNX Runtime recognizes it."""
        value, scales, axis = self._lead(product)
        return self._add("DequantizeLinear", [value, scales], product.node, _along(axis))

    def _lead(self, product: Product) -> tuple[ir.Value, ir.Value, int]:
        """Lead a weight in int8 to its product; returns it, its scales, and their axis in it."""
        scales = self._find_scales(product.weight)
        value, axis = product.weight, 0
        value.dtype = ir.DataType.INT8
        for node in product.path:
            value = self._add(node.op_type, [value, *node.inputs[1:]], product.node, _copy(node))
            value.dtype = ir.DataType.INT8
            if node.op_type == "Slice":
                scales = self._add("Slice", [scales, *node.inputs[1:]], product.node)
            elif node.op_type == "Transpose":
                axis = list(node.attributes["perm"].as_ints()).index(axis)
        return value, scales, axis

    def _multiply_integers(self, product: Product, rounded: _Rounded) -> None:
        """Replace a convolution by one of integers, whose results are scaled afterwards."""
        node = product.node
        weight, scales, _ = self._lead(product)
        total = self._add("ConvInteger", [rounded.value, weight, rounded.zero], node, _copy(node))
        total.dtype = ir.DataType.INT32
        number = {"to": ir.AttrInt64("to", ir.DataType.FLOAT.value)}
        steps = self._add("Mul", [scales, rounded.scale], node)
        column = self._constant(np.array([-1, 1, 1], np.int64), node)
        steps = self._add("Reshape", [steps, column], node)
        result = self._add("Mul", [self._add("Cast", [total], node, number), steps], node)
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            bias = self._add("Reshape", [node.inputs[2], column], node)
            result = self._add("Add", [result, bias], node)
        (output,) = node.outputs
        result.name, output.name = output.name, None
        ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
        self._graph.remove(node, safe=True)

    def _find_scales(self, weight: ir.Value) -> ir.Value:
        if weight in self._scales:
            return self._scales[weight]
        assert weight.shape is not None  # weights have fixed shapes
        shape = ir.Shape([weight.shape[0]])
        kind = _get_type(weight)
        scales = ir.Value(name=f"{weight.name}{SCALES}", type=ir.TensorType(kind), shape=shape)
        tensor = weight.const_value
        if isinstance(tensor, ir.ExternalTensor):
            scales.const_value = declare_like(tensor, scales, kind)
            weight.const_value = declare_like(tensor, weight, ir.DataType.INT8)
            self._graph.register_initializer(scales)
        else:
            self._graph.inputs.append(scales)
        self._scales[weight] = scales
        return scales

    def _add(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        before: ir.Node,
        attributes: Mapping[str, ir.Attr] = MappingProxyType({}),
    ) -> ir.Value:
        node = ir.Node("", operator, inputs, list(attributes.values()))
        self._graph.insert_before(before, node)
        value = node.outputs[0]
        value.dtype = ir.DataType.FLOAT
        return value

    def _constant(self, number: np.generic | np.ndarray, before: ir.Node) -> ir.Value:
        node = ir.node("Constant", [], {"value": ir.tensor(np.asarray(number))})
        self._graph.insert_before(before, node)
        return node.outputs[0]


def _get_type(value: ir.Value) -> ir.DataType:
    assert value.dtype is not None  # weights and their scales are declared with types
    return value.dtype


def _along(axis: int) -> dict[str, ir.Attr]:
    return {"axis": ir.AttrInt64("axis", axis)}


def _copy(node: ir.Node) -> dict[str, ir.Attr]:
    return dict(node.attributes)


def declare_like(like: ir.ExternalTensor, value: ir.Value, dtype: ir.DataType) -> ir.ExternalTensor:
    """Declare an initializer, in the file of another one, whose values come on load."""
    assert value.shape is not None
    return ir.ExternalTensor(
        like.location, None, None, dtype, shape=value.shape, name=str(value.name)
    )
