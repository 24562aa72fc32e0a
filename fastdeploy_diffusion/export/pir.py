"""Export of a Paddle layer to a PIR program: ``program.json``, its weights, and a manifest."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import Parameter, Signature
from pathlib import Path
from types import MethodType
from typing import Any

from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.export.layer_checks import explain_tracing, require_eval_mode
from fastdeploy_diffusion.export.written_files import read_graph, require_weights
from fastdeploy_diffusion.paddle_runtime import paddle
from fastdeploy_diffusion.runtime.manifest import (
    MANIFEST_FILE,
    PROGRAM_FILE,
    WEIGHTS_FILE,
    write_manifest,
)
from fastdeploy_diffusion.runtime.program import Program

# An operator in PIR's JSON: "1." is the dialect of Paddle's own.
OPERATOR = re.compile(r'"#":\s*"1\.(\w+)"')
RANDOM_OPERATORS = frozenset(
    {
        "bernoulli",
        "binomial",
        "exponential_",
        "gaussian",
        "gaussian_inplace_",
        "gumbel_softmax",
        "multinomial",
        "poisson",
        "randint",
        "randperm",
        "standard_gamma",
        "truncated_gaussian_random",
        "uniform",
        "uniform_inplace_",
    }
)


def export_program(program: Program, directory: Path) -> Path:
    """Trace a layer and save it with its weights.

    Scaled dot-product attention is saved as matmul and softmax when Paddle is its CPU build.
    Other exports and eager runs of this library wait meanwhile: tracing switches the whole process
    out of eager mode.

    Args:
        directory: Made if missing; an earlier export in it is replaced.

    Returns:
        Path of ``program.json``; ``program.pdiparams``, if there are weights, lies beside it.

    Raises:
        EngineError: The layer is in training mode, cannot be traced, draws random numbers, or does
            not have the signature that the program claims; or its files were cut short.
    """
    require_eval_mode(program)
    directory.mkdir(parents=True, exist_ok=True)
    for name in (MANIFEST_FILE, PROGRAM_FILE, WEIGHTS_FILE):
        (directory / name).unlink(missing_ok=True)
    path = directory / PROGRAM_FILE
    _trace(program, path)
    graph = read_graph(program.name, path)
    _check_operators(program, graph)
    require_weights(program.name, graph, directory / WEIGHTS_FILE)
    saved = [name for name in (PROGRAM_FILE, WEIGHTS_FILE) if (directory / name).exists()]
    write_manifest(program, directory, saved)
    return path


def _trace(program: Program, path: Path) -> None:
    with explain_tracing(program), _names_by_place(program.layer):
        specs = [
            paddle.static.InputSpec(list(spec.open_shape), spec.dtype, spec.name)
            for spec in program.inputs
        ]
        with _named_arguments(program.layer, [spec.name for spec in program.inputs]):
            paddle.jit.save(program.layer, str(path.with_suffix("")), input_spec=specs)


@contextmanager
def _named_arguments(layer: Any, names: list[str]) -> Iterator[None]:
    """Name the arguments of a layer's ``forward`` until the block ends.

    Paddle's trace requires a name for each; many a layer has as many inputs as its config says.
    """
    forward, own = layer.forward, vars(layer).get("forward")
    parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *names)]

    def named(layer: Any, *tensors: Any) -> Any:
        return forward(*tensors)

    named.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    layer.forward = MethodType(named, layer)
    try:
        yield
    finally:
        del layer.forward
        if own is not None:
            layer.forward = own


@contextmanager
def _names_by_place(layer: Any) -> Iterator[None]:
    """Name tensors by their places in the layer until the block ends.

    Paddle numbers them through the whole process, and saves them in the order of their names: so
    exports for several sizes would have other names, and the same weights in another order.
    """
    tensors = dict([*layer.named_parameters(), *layer.named_buffers()])
    names = {place: tensor.name for place, tensor in tensors.items()}
    try:
        for place, tensor in tensors.items():
            tensor.name = f"layer.{place}"  # no input has such a name
        yield
    finally:
        for place, tensor in tensors.items():
            tensor.name = names[place]


def _check_operators(program: Program, graph: str) -> None:
    operators = OPERATOR.findall(graph)
    if drawn := sorted(RANDOM_OPERATORS.intersection(operators)):
        raise EngineError(
            f"{program.name}: the network draws random numbers ({', '.join(drawn)})",
            allowed="networks whose outputs follow from their inputs",
            fix="draw the numbers outside, and feed them as an input",
        )
    returned = operators.count("fetch")
    if returned != len(program.outputs):
        raise EngineError(
            f"{program.name}: the network returns {returned} tensors",
            allowed=", ".join(spec.name for spec in program.outputs),
        )
