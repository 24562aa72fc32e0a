"""Finishing an exported graph for an engine: graph passes, then initializers."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.passes.graph_pass import GraphPass, apply_graph_passes
from fastdeploy_diffusion.runtime.pass_result import PassResult

# Since when most reductions take their axes as an input; the exported opset is older.
_OPSET_OF_AXES = 18
_REDUCTIONS = frozenset({"ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"})


def finish_graph(
    converted: Path,
    output: Path,
    passes: Sequence[GraphPass],
    dialect: Dialect,
    *,
    initializers: Collection[str] = (),
) -> list[PassResult]:
    """Write the graph as an engine reads it; names of inputs and outputs stay.

    Args:
        converted: The ONNX file, in which every weight is an input.
        initializers: Names of the weights to declare as external initializers.

    Returns:
        A result for each pass.

    Raises:
        PassError: A pass failed.
    """
    import onnx

    model = onnx.load(str(converted))
    results: list[PassResult] = []
    if passes:
        model, results = _rewrite(model, passes, dialect)
    _make_initializers(model.graph, initializers)
    onnx.save(model, str(output))
    return results


def raise_opset(model: Any, opset: int) -> None:
    """Raise the opset of an ``onnx_ir.Model`` to another, unless its own is newer."""
    model.opset_imports[""] = max(model.opset_imports[""], opset)
    _move_axes(model)


def prepare_graph(converted: Path) -> Any:
    """Read a graph as graph passes get it: without detours, and with inferred shapes.

    Returns:
        An ``onnx.ModelProto``, for `try_graph_pass`.
    """
    import onnx

    return _prepare(onnx.load(str(converted)))


def try_graph_pass(prepared: Any, each: GraphPass, dialect: Dialect) -> list[PassResult]:
    """Apply a pass alone to a copy of a graph; arguments, result and errors as `finish_graph`."""
    import onnx_ir

    return apply_graph_passes([each], onnx_ir.from_proto(prepared), dialect)


def _rewrite(
    proto: Any, passes: Sequence[GraphPass], dialect: Dialect
) -> tuple[Any, list[PassResult]]:
    import onnx_ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    model = onnx_ir.from_proto(_prepare(proto))
    results = apply_graph_passes(passes, model, dialect)
    _move_axes(model)
    RemoveUnusedNodesPass()(model)
    rewritten = onnx_ir.to_proto(model)
    del rewritten.graph.value_info[:]  # engines infer these themselves
    return rewritten, results


def _prepare(proto: Any) -> Any:
    import onnx
    import onnx_ir

    # Paddle sets the level of the whole process's log to INFO.
    logging.getLogger("onnx_ir").setLevel(logging.WARNING)
    logging.getLogger("onnxscript").setLevel(logging.WARNING)
    model = onnx_ir.from_proto(proto)
    _straighten(model)
    # Rules ask for sizes; free dimensions stay free.
    return onnx.shape_inference.infer_shapes(onnx_ir.to_proto(model), data_prop=True)


def _straighten(model: Any) -> None:
    """Remove what Paddle2ONNX puts between operators, so that patterns need not allow for it."""
    from onnx_ir.passes.common import IdentityEliminationPass, RemoveUnusedNodesPass
    from onnxscript.rewriter import RewriteRule, RewriteRuleSet

    # Paddle's ``scale`` adds a bias, which is mostly zero.
    without_zero = RewriteRule(lambda op, x: op.Add(x, 0.0), lambda op, x: op.Identity(x))
    RewriteRuleSet([without_zero]).apply_to_model(model)
    IdentityEliminationPass()(model)
    RemoveUnusedNodesPass()(model)


def _move_axes(model: Any) -> None:
    """Turn the axes of reductions into an input, where passes raised the opset to need it.

    OpenVINO does not refuse the older opsets' attribute there: it reduces all axes.
    """
    import onnx_ir

    if model.opset_imports[""] < _OPSET_OF_AXES:
        return
    for node in list(model.graph):
        if node.op_type in _REDUCTIONS and "axes" in node.attributes:
            axes = list(node.attributes.pop("axes").as_ints())
            constant = onnx_ir.node("Constant", [], {"value_ints": axes})
            model.graph.insert_before(node, constant)
            node.resize_inputs(2)
            node.replace_input_with(1, constant.outputs[0])


def _make_initializers(graph: Any, names: Collection[str]) -> None:
    """Turn weights from inputs into external initializers, which the runtime folds and packs."""
    wanted = set(names)
    for value in [each for each in graph.input if each.name in wanted]:
        graph.input.remove(value)
        tensor = graph.initializer.add()
        tensor.name = value.name
        tensor.data_type = value.type.tensor_type.elem_type
        tensor.dims.extend(size.dim_value for size in value.type.tensor_type.shape.dim)
        tensor.data_location = tensor.EXTERNAL
        # There is no such file; the format requires a name.
        tensor.external_data.add(key="location", value="bound-when-loaded")
