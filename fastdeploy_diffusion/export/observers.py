"""An exported graph that also says what its convolutions and linear layers read."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.export.quantized_layers import find_products
from fastdeploy_diffusion.quantization import Range
from fastdeploy_diffusion.runtime.manifest import GRAPH_FILE, check_manifest, write_manifest
from fastdeploy_diffusion.runtime.program import Program, TensorSpec

OBSERVED = "observed"
# Numbers that are read of each input of a layer, beside its smallest and largest.
SAMPLES = 4096
# Of each layer, as many are kept for all calls.
_KEPT = 1 << 17
# Indices are multiples of it, modulo the size: spread over all channels and rows, whatever the
# layout (Knuth's multiplicative hash).
_STRIDE = 2654435761
# Shares of the full range that are tried.
_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3)


def observe_export(program: Program, directory: Path) -> tuple[Program, list[str]]:
    """Add an output to an export: a row for each layer, of what it reads.

    A row has the smallest number, the largest, and a sample.

    Returns:
        The program with the output, and the layers of its rows.

    Raises:
        EngineError: The export is damaged, or another program's.
    """
    weights = check_manifest(program, directory)
    path = directory / GRAPH_FILE
    model = ir.load(path)
    graph = model.graph
    read = {each.layer: each.node.inputs[0] for each in find_products(graph, weights)}
    rows: dict[ir.Value | None, ir.Value] = {}
    for value in read.values():
        if value not in rows:
            rows[value] = _add_row(graph, value)
    joined = _add(graph, "Concat", [rows[value] for value in read.values()], axis=0)
    joined.name, joined.dtype = OBSERVED, ir.DataType.FLOAT
    joined.shape = ir.Shape([len(read), SAMPLES + 2])
    graph.outputs.append(joined)
    graph.sort()
    ir.save(model, path)
    spec = TensorSpec(OBSERVED, (len(read), SAMPLES + 2), "float32")
    observed = replace(program, outputs=(*program.outputs, spec))
    write_manifest(observed, directory, [GRAPH_FILE], weights)
    return observed, list(read)


def choose_ranges(
    component: str,
    layers: list[str],
    observed: Iterable[np.ndarray],
    *,
    clips: bool = True,
    symmetric: bool = False,
) -> dict[str, Range]:
    """Choose for each layer the range in which eight bits lose least of what it read.

    Args:
        observed: The output of each call.
        clips: Whether a smaller range than the full one may be chosen: the one of the least mean
            square error.
        symmetric: Whether ranges reach as far below zero as above.

    Raises:
        EngineError: There was no call.
    """
    lows = np.full(len(layers), np.inf)
    highs = -lows
    kept: list[np.ndarray] = []
    for rows in observed:
        lows, highs = np.minimum(lows, rows[:, 0]), np.maximum(highs, rows[:, 1])
        kept.append(rows[:, 2:].copy())
        if sum(each.shape[1] for each in kept) > _KEPT:
            kept = [each[:, ::2] for each in kept]
    if not kept:
        raise EngineError(
            f"{component}: there are no inputs to calibrate it with",
            allowed="the inputs of one run, or more",
        )
    if symmetric:
        highs = np.maximum(-lows, highs)
        lows = -highs
    samples = np.concatenate(kept, axis=1)
    return {
        layer: _clip(Range(float(low), float(high)), sample, clips=clips)
        for layer, low, high, sample in zip(layers, lows, highs, samples, strict=True)
    }


def _clip(full: Range, sample: np.ndarray, *, clips: bool) -> Range:
    shares = _SHARES if clips else _SHARES[:1]
    tried = [Range(full.low * share, full.high * share) for share in shares]
    errors = [_measure_error(each, sample) for each in tried]
    return tried[int(np.argmin(errors))]


def _measure_error(numbers: Range, sample: np.ndarray) -> float:
    """Measure the mean square error of eight bits."""
    low, high = min(numbers.low, 0.0), max(numbers.high, 0.0)
    step = max((high - low) / 255, float(np.finfo(np.float32).tiny))
    rounded = np.clip(np.rint(sample / step), np.rint(low / step), np.rint(high / step)) * step
    return float(np.square(rounded - sample, dtype=np.float64).mean())


def _add_row(graph: ir.Graph, value: ir.Value | None) -> ir.Value:
    """Add a row: smallest, largest, and a sample."""
    flat = _add(graph, "Reshape", [value, _constant(graph, np.array([-1], np.int64))])
    size = _add(graph, "Shape", [flat])
    numbers = _constant(graph, np.arange(SAMPLES, dtype=np.int64) * _STRIDE)
    sample = _add(graph, "Gather", [flat, _add(graph, "Mod", [numbers, size])], axis=0)
    ends = [_add(graph, kind, [flat], axes=[0], keepdims=1) for kind in ("ReduceMin", "ReduceMax")]
    row = _add(graph, "Concat", [*ends, sample], axis=0)
    return _add(graph, "Unsqueeze", [row, _constant(graph, np.array([0], np.int64))])


def _add(
    graph: ir.Graph, operator: str, inputs: Sequence[ir.Value | None], **attributes: Any
) -> ir.Value:
    node = ir.node(operator, inputs, attributes)
    graph.append(node)
    return node.outputs[0]


def _constant(graph: ir.Graph, array: np.ndarray) -> ir.Value:
    return _add(graph, "Constant", [], value=ir.tensor(array))
