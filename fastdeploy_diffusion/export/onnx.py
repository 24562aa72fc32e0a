"""Export to ONNX without weights: ``graph.onnx`` takes every parameter as an input."""

import json
from collections.abc import Mapping
from pathlib import Path

from fastdeploy_diffusion.disk_room import make_temporary_folder
from fastdeploy_diffusion.errors import EngineUnavailableError
from fastdeploy_diffusion.export.graph_file import finish_graph
from fastdeploy_diffusion.export.onnx_converter import CONVERTER
from fastdeploy_diffusion.export.onnx_operators import repair_for_onnx
from fastdeploy_diffusion.export.weightless import trace_without_weights
from fastdeploy_diffusion.export.written_files import read_graph
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.onnx_packages import INSTALL, missing_packages
from fastdeploy_diffusion.paddle_runtime import find_linear_weights
from fastdeploy_diffusion.runtime.manifest import GRAPH_FILE, MANIFEST_FILE, write_manifest
from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.recipe import Derivation, MadeOf, Weight, replace_names
from fastdeploy_diffusion.size_range import SizeRange

OPSET = 17


def export_onnx(
    program: Program,
    directory: Path,
    *,
    as_initializers: bool = False,
    dialect: Dialect = Dialect.STANDARD,
    precision: str = "fp32",
    float32_kernels: bool = False,
) -> Path:
    """Trace a layer, convert its graph, and apply the graph passes that the program asks for.

    Args:
        program: Its layer in eval mode.
        directory: Made if missing; an earlier export in it is replaced.
        as_initializers: Declare the parameters as external initializers, whose values come at load
            time, and not as inputs.
        precision: Of the computation: ``"fp32"``, ``"fp16"`` or ``"bf16"``. Inputs and outputs
            keep the types of their specs.
        float32_kernels: In half precision, round between operators that compute in float32.

    Returns:
        Path of ``graph.onnx``. Its inputs are those of the program, then the parameters that it
        uses, by their names in the layer, which the manifest lists; its outputs are named as the
        program's. The results of graph passes are in the manifest, too.

    Raises:
        EngineUnavailableError: Paddle2ONNX is not installed.
        EngineError: The layer cannot be traced, or has operators that cannot be converted.
        PassError: A graph pass failed.
    """
    if missing := missing_packages():
        raise EngineUnavailableError(
            f"{' and '.join(missing)}, which the export to ONNX needs, cannot be imported",
            fix=INSTALL,
        )
    from fastdeploy_diffusion.export.half_inputs import narrow_inputs, widen_inputs

    CONVERTER.start()
    directory.mkdir(parents=True, exist_ok=True)
    output = directory / GRAPH_FILE
    for stale in (directory / MANIFEST_FILE, output):
        stale.unlink(missing_ok=True)
    with make_temporary_folder(program.name) as folder:
        traced = folder / "traced.json"
        widened = widen_inputs(program)
        weights = trace_without_weights(widened, traced)
        graph = repair_for_onnx(program.name, read_graph(program.name, traced))
        traced.write_text(graph, encoding="utf-8")
        converted = traced.with_suffix(".onnx")
        _convert(widened, traced, converted)
        results = finish_graph(
            converted,
            output,
            program.graph_passes,
            dialect,
            initializers=weights if as_initializers else [],
        )
    types = dict.fromkeys(weights, "float32")
    if precision != "fp32":
        from fastdeploy_diffusion.export.half_precision import convert_to_half

        types |= convert_to_half(output, weights, precision, float32_kernels=float32_kernels)
    narrow_inputs(program, output)
    recipe = _find_recipe(program)
    bound = {name: Weight(recipe.get(name, name), types[name]) for name in weights}
    write_manifest(program, directory, [GRAPH_FILE], bound, results)
    return output


def _find_recipe(program: Program) -> Mapping[str, MadeOf]:
    """Return the recipe of the graph's weights; a layer's own linear weights are transposed."""
    if program.tensors is not None:
        return program.recipe
    transposed = {
        name: Derivation((name,), "transpose") for name in find_linear_weights(program.layer)
    }
    own = {
        name: replace_names(made_of, lambda each: transposed.get(each, each))
        for name, made_of in program.recipe.items()
    }
    return {**transposed, **own}


def _convert(program: Program, traced: Path, output: Path) -> None:
    job = traced.with_name("job.json")
    job.write_text(
        json.dumps(
            {
                "graph": str(traced),
                "output": str(output),
                "opset": OPSET,
                "outputs": [spec.name for spec in program.outputs],
                "shapes": {
                    spec.name: [
                        size.name if isinstance(size, SizeRange) else size for size in spec.shape
                    ]
                    for spec in (*program.inputs, *program.outputs)
                },
            }
        ),
        encoding="utf-8",
    )
    CONVERTER.convert(program.name, job)
