"""The builder for OpenVINO: an exported graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.export.int8 import quantize_export
from fastdeploy_diffusion.export.onnx import export_onnx
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.runtime.program import Program

if TYPE_CHECKING:
    from fastdeploy_diffusion.engines.openvino import OpenVINOEngine


def build(engine: OpenVINOEngine, program: Program, spec: BuildSpec, out: Path) -> None:
    """Export the graph, quantized in int8.

    OpenVINO itself narrows the rest to a half precision when it compiles it.
    """
    export_onnx(program, out, dialect=engine.dialect)
    if PRECISIONS[spec.precision].is_quantized:
        quantize_export(program, out, spec.precision)
