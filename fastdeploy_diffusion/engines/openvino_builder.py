"""The builder for OpenVINO: an exported graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.export.onnx import export_onnx
from fastdeploy_diffusion.runtime.program import Program

if TYPE_CHECKING:
    from fastdeploy_diffusion.engines.openvino import OpenVINOEngine


def build(engine: OpenVINOEngine, program: Program, spec: BuildSpec, out: Path) -> None:
    """Export the graph: OpenVINO itself narrows it to a half precision when it compiles it."""
    export_onnx(program, out, dialect=engine.dialect)
