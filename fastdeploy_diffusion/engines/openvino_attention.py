"""Attention by this library's own kernel in OpenVINO: its library, and its types.

OpenVINO runs an operator from outside in the types that it declares, whatever it is told to
compute in, and converts from and to float32 by default. Conversions in the graph that go down to
bfloat16 keep what lies between them in that.
"""

from pathlib import Path
from typing import Any

from fastdeploy_diffusion.native.library import OPERATOR, load_library
from fastdeploy_diffusion.runtime.program import Program

_INPUTS = 3  # queries, keys, values; a bias stays in float32


def add_operators(core: Any, program: Program, artifact: Path) -> None:
    """Make the operators that were compiled for a build known to a core.

    Raises:
        EngineError: This machine is not what they need.
    """
    if library := load_library(program, artifact):
        core.add_extension(str(library))


def narrow_attention(model: Any) -> None:
    """Let attention take and give bfloat16, in place, in a model that computes in that."""
    from openvino import Type, opset13

    for node in model.get_ordered_ops():
        if node.get_type_name() != OPERATOR:
            continue
        targets = node.output(0).get_target_inputs()
        for each in node.inputs()[:_INPUTS]:
            each.replace_source_output(
                opset13.convert(each.get_source_output(), Type.bf16).output(0)
            )
        node.validate_and_infer_types()
        widened = opset13.convert(node.output(0), Type.f32)
        for each in targets:
            each.replace_source_output(widened.output(0))
