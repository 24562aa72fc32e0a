"""The builder for OpenVINO: an exported graph, and the operators that passes put into it."""

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
    from fastdeploy_diffusion.engines.openvino import OpenVINOEngine

_LIBRARIES = ("libopenvino", "libtbb")


def build(engine: OpenVINOEngine, program: Program, spec: BuildSpec, out: Path) -> None:
    """Export the graph, quantized in int8.

    OpenVINO itself narrows the rest to a half precision when it compiles it.
    """
    export_onnx(program, out, dialect=engine.dialect)
    if PRECISIONS[spec.precision].is_quantized:
        bits = spec.weight_bits
        quantize_export(program, out, spec.precision, bits, multiplies_patches=True)
    if any(each.is_native for each in program.graph_passes):
        compile_operators(engine, out / LIBRARY_FILE, spec.notes)
        add_library(out, LIBRARY_FILE, describe_needs(engine.native_runtimes))


def compile_operators(engine: OpenVINOEngine, out: Path, notes: Path | None = None) -> None:
    """Compile this library's operators for the installed OpenVINO, whose wheel has its headers.

    Raises:
        EngineError: The compiler failed.
    """
    import openvino

    package = Path(openvino.__file__).parent
    libraries = [str(next((package / "libs").glob(f"{name}.so*"))) for name in _LIBRARIES]
    places = ["-isystem", str(package / "include"), *libraries]
    build_library(engine.native_adapter, engine.native_runtimes, out, notes, places)
