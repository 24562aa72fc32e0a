"""From a program to what OpenVINO reads."""

from pathlib import Path

from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.openvino import OpenVINOEngine
from fastdeploy_diffusion.engines.openvino_model import keep_model
from fastdeploy_diffusion.export.onnx import export_onnx
from fastdeploy_diffusion.program import Program


def build(program: Program, spec: BuildSpec, out: Path) -> None:
    """Export the graph: OpenVINO itself narrows it to a half precision when it compiles it."""
    export_onnx(program, out, dialect=OpenVINOEngine.dialect)
    if spec.notes is not None:
        keep_model(program, out, spec.notes)
