"""The builder for ONNX Runtime: an exported graph, and the operators that passes put into it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.export.int8 import quantize_export
from fastdeploy_diffusion.export.onnx import export_onnx
from fastdeploy_diffusion.native.library import LIBRARY_FILE, build_library, describe_needs
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.runtime.manifest import add_library
from fastdeploy_diffusion.runtime.program import Program

if TYPE_CHECKING:
    from fastdeploy_diffusion.engines.onnxruntime import ONNXRuntimeEngine


def build(engine: ONNXRuntimeEngine, program: Program, spec: BuildSpec, out: Path) -> None:
    """Export the graph in the spec's precision; what is not quantized in int8, in float32."""
    is_quantized = PRECISIONS[spec.precision].is_quantized
    export_onnx(
        program,
        out,
        as_initializers=True,
        dialect=engine.dialect,
        precision="fp32" if is_quantized else spec.precision,
        float32_kernels=spec.device.kind == "cpu",
    )
    if is_quantized:
        quantize_export(program, out, spec.precision, spec.weight_bits, engine.dialect)
    if any(each.is_native for each in program.graph_passes):
        compile_operators(engine, out / LIBRARY_FILE, spec.notes)
        add_library(out, LIBRARY_FILE, describe_needs(engine.native_runtimes))


def compile_operators(engine: ONNXRuntimeEngine, out: Path, notes: Path | None = None) -> None:
    """Compile this library's operators for every ONNX Runtime that has the needed interface.

    Raises:
        EngineError: The compiler failed.
    """
    build_library(engine.native_adapter, engine.native_runtimes, out, notes)
