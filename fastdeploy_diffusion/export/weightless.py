"""A layer traced without its weights: every parameter becomes an input of the graph.

The graph is a few hundred kilobytes at any size of the model, no weight is copied on the way, and
an engine binds the weights when it loads.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fastdeploy_diffusion.export.layer_checks import explain_tracing, require_eval_mode
from fastdeploy_diffusion.paddle_runtime import find_linear_weights, paddle, static_mode
from fastdeploy_diffusion.runtime.program import Program


def trace_without_weights(program: Program, path: Path) -> list[str]:
    """Trace a layer and save its graph as PIR.

    The graph's inputs are those of the program, then the parameters that it uses, by their names
    in the layer and in PyTorch's layout, in which checkpoints hold them: the weight of a linear
    layer is [out, in].

    Other exports and eager runs of this library wait meanwhile: tracing switches the whole process
    out of eager mode. The layer is left as it was; it may have been made under ``LazyGuard``.

    Returns:
        The names of those parameters.

    Raises:
        EngineError: The layer is in training mode, or cannot be traced.
    """
    require_eval_mode(program)
    with explain_tracing(program):
        return _trace(program, path)


def _trace(program: Program, path: Path) -> list[str]:
    layer: Any = program.layer
    # Read in eager mode: inside the trace they are gone.
    buffers = {name: buffer.numpy() for name, buffer in layer.named_buffers()}
    graph, start = paddle.static.Program(), paddle.static.Program()
    with static_mode(), paddle.static.program_guard(graph, start):
        inputs = [
            paddle.static.data(spec.name, list(spec.open_shape), spec.dtype)
            for spec in program.inputs
        ]
        with _stand_ins(layer, buffers) as weights:
            returned = layer(*inputs)
        outputs = list(returned) if isinstance(returned, Sequence) else [returned]
        # A decoder is traced inside its whole autoencoder: the encoder's weights stay out.
        weights = {name: each for name, each in weights.items() if not each.used.use_empty()}
        paddle.static.save_inference_model(
            str(path.with_suffix("")),
            [*inputs, *(weight.given for weight in weights.values())],
            outputs,
            paddle.static.Executor(),
            program=graph,
        )
    return list(weights)


class _StandIn(NamedTuple):
    given: Any  # the graph's input, in the checkpoint's layout
    used: Any  # the layer reads this in the parameter's place


@contextmanager
def _stand_ins(layer: Any, buffers: dict[str, Any]) -> Iterator[dict[str, _StandIn]]:
    """Replace parameters by graph inputs, and buffers by constants."""
    linear_weights = find_linear_weights(layer)
    weights: dict[str, _StandIn] = {}
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for prefix, part in layer.named_sublayers(include_self=True):
            for key, parameter in list(part._parameters.items()):
                if parameter is not None:
                    name = f"{prefix}.{key}".lstrip(".")
                    shape = list(parameter.shape)
                    weights[name] = _stand_in(name, shape, name in linear_weights)
                    replaced.append((part._parameters, key, parameter))
                    part._parameters[key] = weights[name].used
            for key, buffer in list(part._buffers.items()):
                if buffer is not None:
                    replaced.append((part._buffers, key, buffer))
                    part._buffers[key] = paddle.assign(buffers[f"{prefix}.{key}".lstrip(".")])
        yield weights
    finally:
        for place, key, original in replaced:
            place[key] = original


def _stand_in(name: str, shape: list[int], is_transposed: bool) -> _StandIn:
    if not is_transposed:
        given = paddle.static.data(name, shape, "float32")
        return _StandIn(given, given)
    given = paddle.static.data(name, shape[::-1], "float32")
    return _StandIn(given, given.transpose([1, 0]))
