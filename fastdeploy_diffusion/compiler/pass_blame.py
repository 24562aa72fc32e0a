"""Finds the pass that is to blame for a failed build."""

from dataclasses import replace
from pathlib import Path

from fastdeploy_diffusion.compiler.build import ComponentBuild
from fastdeploy_diffusion.compiler.rewriting import rewrite_network
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.placement import Placement
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.errors import DiffusionError, PassError, ResourceError
from fastdeploy_diffusion.out_of_memory import tells_of_memory
from fastdeploy_diffusion.passes.base import LayerPass
from fastdeploy_diffusion.passes.graph_pass import GraphPass
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.runtime.program import Program


def find_guilty_pass(build: ComponentBuild) -> PassError | None:
    """Apply each pass alone, and compare the result with the original.

    Those that change the picture are always applied: they make the original. For a layer pass, the
    Paddle layer is run without an engine, so any difference or failure is the pass's. A graph pass
    is judged on the engine, if that is right without it.

    Returns:
        The error of the first faulty pass, to be raised; ``None`` if there is none.
    """
    if not build.passes:
        return None
    changes = build.reference.layer_passes
    try:
        _prove(build, changes)
    except Exception:  # the network fails without any pass
        return None
    for each in [named.load() for named in build.passes if not named.changes_picture]:
        try:
            if isinstance(each, LayerPass):
                _prove(build, (*changes, each))
            elif isinstance(each, GraphPass):
                _prove_on_engine(build, each)
        except Exception as error:  # of any type: the pass has made the difference
            if isinstance(error, ResourceError) or tells_of_memory(error):
                return None  # too little memory, which says nothing of the pass
            if isinstance(error, PassError):
                return error
            name = type(error).__name__
            what = error.problem if isinstance(error, DiffusionError) else f"{name}: {error}"
            return PassError(
                f"the pass {each} fails its check on {build.name}: {what}",
                allowed=f"the layer's own numbers, to {PRECISIONS['fp32'].criterion}",
                fix="leave the pass out, and report this",
            )
    return None


def _prove_on_engine(build: ComponentBuild, each: GraphPass) -> None:
    changes = build.reference.passes
    try:
        build.with_passes(changes).open(None).session.close()
    except Exception:  # the engine fails without any pass
        return
    build.with_passes((*changes, each)).open(None).session.close()


def _prove(build: ComponentBuild, passes: tuple[LayerPass, ...]) -> None:
    rewritten = rewrite_network(build.network, passes)
    program = Program(build.name, rewritten.load(), build.inputs, build.outputs)
    spec = BuildSpec(Device("cpu"), threads=build.placement.spec.threads)
    engine = create_engine("paddle-eager")
    with engine.load(program, spec, Path()) as session:
        replace(build, placement=Placement(engine, spec)).prove(session)
