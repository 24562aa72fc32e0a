"""The programs of a network with all its weights in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from fastdeploy_diffusion.runtime.program import Program, Signature
from fastdeploy_diffusion.runtime.stages import Stage, check_chain, join_signatures, read_stages


class StageProgram(NamedTuple):
    """One of the programs of a network."""

    stage: Stage
    program: Program
    folder: Path


def cut_program(program: Program, artifact: Path = Path()) -> list[StageProgram]:
    """Cut a program into prologue and step, if passes hoisted work into the prologue.

    Args:
        program: The whole, with its rewritten layer.

    Raises:
        EngineError: The layer's stages do not follow from one another.
    """
    # Imported late, so that finding a finished build's programs needs no Paddle.
    from fastdeploy_diffusion.models.stages import StageLayer

    layer: Any = program.layer
    whole = Signature(program.inputs, program.outputs)
    if not getattr(layer, "is_hoisted", False):
        return [StageProgram(Stage(program.name, *whole), program, artifact)]
    prologue, *steps = layer.list_stages(*whole)
    check_chain(program.name, [prologue, *steps], whole)
    step = Stage("step", *join_signatures(steps, program.outputs))
    parts = []
    for stage, stages in ((prologue, [prologue]), (step, steps)):
        own = Signature(stage.inputs, stage.outputs)
        cut = StageLayer(layer, stages, own)
        cut.eval()
        parts.append(_describe(stage, replace(program, layer=cut), artifact))
    return parts


def find_programs(program: Program, artifact: Path) -> list[StageProgram]:
    """Read the programs of a finished build from its folder: no layer is needed.

    Raises:
        EngineError: It cannot be read.
    """
    stages = read_stages(artifact)
    if not stages:
        whole = Stage(program.name, program.inputs, program.outputs)
        return [StageProgram(whole, program, artifact)]
    return [_describe(stage, program, artifact) for stage in stages]


def _describe(stage: Stage, whole: Program, artifact: Path) -> StageProgram:
    name = f"{whole.name}_{stage.name}"
    own = replace(whole, name=name, inputs=stage.inputs, outputs=stage.outputs)
    return StageProgram(stage, own, artifact / name)
