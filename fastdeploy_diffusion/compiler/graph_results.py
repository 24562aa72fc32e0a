"""Results of graph passes, summed over all programs of a component."""

from collections.abc import Sequence
from typing import Any

from fastdeploy_diffusion.engines.base import Engine
from fastdeploy_diffusion.passes.graph_pass import GraphPass
from fastdeploy_diffusion.predictors.stage_programs import StageProgram
from fastdeploy_diffusion.runtime.manifest import read_graph_passes
from fastdeploy_diffusion.runtime.pass_result import PassResult


def collect_graph_results(
    passes: Sequence[GraphPass],
    network: Any,
    engine: Engine,
    parts: Sequence[StageProgram],
) -> list[PassResult]:
    """Add up the results of a component's exports.

    Args:
        network: The component's layer, as it was exported.

    Returns:
        A result for each pass, with what the network's config promises.
    """
    if engine.dialect is None:
        return [refuse_graph_pass(each, engine) for each in passes]
    done = [result for part in parts for result in read_graph_passes(part.program, part.folder)]
    return [sum_results(each, network, engine, done) for each in passes]


def refuse_graph_pass(each: GraphPass, engine: Engine) -> PassResult:
    """Make the result of a pass on an engine without ONNX graphs."""
    return PassResult(each.name, 0, 0, {"": f"{engine.name} reads no ONNX graph"})


def sum_results(
    each: GraphPass, network: Any, engine: Engine, done: Sequence[PassResult]
) -> PassResult:
    """Sum the results of one pass; see `collect_graph_results`."""
    own = [result for result in done if result.name == each.name]
    # Programs have names of places in common: the last one's reason stands for both.
    skipped = {place: reason for result in own for place, reason in result.skipped.items()}
    refused = engine.dialect is not None and each.refuse(engine.dialect)
    return PassResult(
        each.name,
        count=sum(result.count for result in own),
        expected=0 if refused else each.expect(network),
        skipped=skipped,
    )
