"""The process of Paddle2ONNX: ``python -m fastdeploy_diffusion.export.onnx_child``.

Paddle2ONNX may kill its process, and it may report success over an empty file. Each line on
standard input names a job, and gets a line on standard output when it is done; the first that fails
ends the process. A job is a JSON file with ``graph`` (a PIR file), ``output`` (the ONNX file),
``opset``, ``outputs`` (names), and ``shapes`` (of inputs and outputs by name: numbers, names of
free dimensions, and ``null`` for one without a name).
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.paddle_runtime import paddle as _paddle  # noqa: F401  # quietly, first


def main() -> None:
    """Convert the graphs that standard input names, until one fails."""
    import onnx  # noqa: F401  # before the first job, as it takes a while
    import paddle2onnx  # noqa: F401

    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Paddle2ONNX reports its progress there
        for line in sys.stdin:
            _convert(json.loads(Path(line.removesuffix("\n")).read_text(encoding="utf-8")))
            print("done", file=answers, flush=True)


def _convert(job: dict[str, Any]) -> None:
    """Convert, check and finish one graph."""
    import onnx
    import paddle2onnx

    output = Path(job["output"])
    paddle2onnx.export(
        job["graph"],
        "",
        save_file=str(output),
        opset_version=job["opset"],
        auto_upgrade_opset=False,
        optimize_tool="none",  # the default installs packages with pip
    )
    if not output.stat().st_size:
        raise ValueError("Paddle2ONNX has written an empty file: is there room on its disk?")
    model = onnx.load(str(output))
    _name_outputs(model.graph, job["outputs"])
    _set_shapes([*model.graph.input, *model.graph.output], job["shapes"])
    del model.graph.value_info[:]  # shapes under the names that have changed
    onnx.checker.check_model(model)
    onnx.save(model, str(output))


def _name_outputs(graph: Any, names: list[str]) -> None:
    """Rename outputs from Paddle2ONNX's own names to their specs'."""
    if len(graph.output) != len(names):
        raise ValueError(f"the network returns {len(graph.output)} tensors, not {len(names)}")
    for output, name in zip(graph.output, names, strict=True):
        for node in graph.node:
            for index, produced in enumerate(node.output):
                if produced == output.name:
                    node.output[index] = name
            for index, used in enumerate(node.input):
                if used == output.name:
                    node.input[index] = name
        output.name = name


def _set_shapes(values: list[Any], shapes: dict[str, list[int | str | None]]) -> None:
    """Write the specs' sizes; a free dimension without a name gets one of its own."""
    for value in values:
        if value.name not in shapes:
            continue
        dimensions = value.type.tensor_type.shape
        del dimensions.dim[:]
        for index, size in enumerate(shapes[value.name]):
            dimension = dimensions.dim.add()
            if isinstance(size, int):
                dimension.dim_value = size
            else:
                dimension.dim_param = size or f"{value.name}.{index}"


if __name__ == "__main__":
    main()
