"""Inputs in half precision for graphs that are traced with float32 ones."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from fastdeploy_diffusion.runtime.program import Program

_TYPES: Mapping[str, ir.DataType] = {
    "float16": ir.DataType.FLOAT16,
    "bfloat16": ir.DataType.BFLOAT16,
}


def widen_inputs(program: Program) -> Program:
    """Widen a program's half-precision inputs to float32, as it can be traced."""
    inputs = (
        replace(spec, dtype="float32") if spec.dtype in _TYPES else spec for spec in program.inputs
    )
    return replace(program, inputs=tuple(inputs))


def narrow_inputs(program: Program, path: Path) -> None:
    """Set the inputs of an ONNX file to its program's types, in place; each is cast once."""
    wanted = {spec.name: _TYPES[spec.dtype] for spec in program.inputs if spec.dtype in _TYPES}
    if not wanted:
        return
    model = ir.load(path)
    for value in model.graph.inputs:
        if value.name not in wanted:
            continue
        cast = ir.node("Cast", [value], {"to": ir.DataType.FLOAT.value})
        readers = [use for use in value.uses() if use.node is not cast]
        for reader, index in readers:
            reader.replace_input_with(index, cast.outputs[0])
        value.dtype = wanted[value.name]
        model.graph.insert_before(model.graph[0], cast)
    ir.save(model, path)
