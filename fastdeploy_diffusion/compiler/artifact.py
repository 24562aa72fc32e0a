"""Artifacts of components: their programs, rewritten by passes, built by an engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastdeploy_diffusion.compiler.graph_results import collect_graph_results
from fastdeploy_diffusion.compiler.rewriting import rewrite_network
from fastdeploy_diffusion.passes.contract import require_promise
from fastdeploy_diffusion.predictors.stage_programs import (
    StageProgram,
    cut_program,
    find_programs,
)
from fastdeploy_diffusion.runtime.pass_result import PassResult
from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.stages import write_stages

if TYPE_CHECKING:
    from fastdeploy_diffusion.compiler.build import ComponentBuild


def build_artifact(
    build: ComponentBuild, artifact: Path, notes: Path | None
) -> tuple[Program, list[StageProgram], dict[str, int]]:
    """Build the parts of a component.

    Args:
        notes: As in `BuildSpec`.

    Returns:
        The component's program and its parts, without layers if the engine loads its builds from
        files; and how many places each pass rewrote.
    """
    engine = build.placement.engine
    program, results = _rewrite(build)
    parts, spec = cut_program(program, artifact), replace(build.placement.spec, notes=notes)
    for part in parts:
        engine.build(part.program, spec, part.folder)
    if len(parts) > 1:
        write_stages([part.stage for part in parts], artifact)
    rewrites = collect_graph_results(build.graph_passes, program.layer, engine, parts)
    for each, result in zip(build.graph_passes, rewrites, strict=True):
        require_promise(each, result, build.name)
    if engine.keeps_builds:
        program = replace(program, layer=None)
        parts = [part._replace(program=replace(part.program, layer=None)) for part in parts]
    return program, parts, {each.name: each.count for each in (*results, *rewrites)}


def find_artifact(build: ComponentBuild, artifact: Path) -> tuple[Program, list[StageProgram]]:
    """Read the program of a finished build and its parts; no layer is made.

    Raises:
        EngineError: It cannot be read.
    """
    program = Program(build.name, None, build.inputs, build.outputs)
    if build.placement.engine.binds_weights:
        source, adaptation = build.network.source, build.adaptation
        program = replace(program, tensors=adaptation.apply(source) if adaptation else source)
    return program, find_programs(program, artifact)


def _rewrite(build: ComponentBuild) -> tuple[Program, list[PassResult]]:
    """Apply the layer passes; returns the program to build, and their results."""
    signature = build.inputs, build.outputs
    program = Program(build.name, None, *signature, graph_passes=build.graph_passes)
    program = replace(program, quantization=build.quantization)
    binds_weights = build.placement.engine.binds_weights
    if not binds_weights and not build.layer_passes:
        return replace(program, layer=build.reference.load().layer), []
    rewritten = rewrite_network(build.network, build.layer_passes)
    if binds_weights:
        tensors, recipe = build.network.source, rewritten.recipe
        program = replace(program, layer=rewritten.layer, tensors=tensors, recipe=recipe)
    else:
        program = replace(program, layer=rewritten.load())
    return program, rewritten.results
