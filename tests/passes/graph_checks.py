"""What every graph pass is tested with."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino

from fastdeploy_diffusion.export.graph_file import finish_graph
from fastdeploy_diffusion.export.onnx import export_onnx
from fastdeploy_diffusion.onnx_dialect import Dialect


def export(program):
    """Export a program, every weight of which becomes an input."""
    with tempfile.TemporaryDirectory() as folder:
        return onnx.load(str(export_onnx(program, Path(folder))))


def rewrite(model, passes, dialect):
    """Apply graph passes; give the new model and the results."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        onnx.save(model, str(path))
        results = finish_graph(path, path, passes, dialect)
        return onnx.load(str(path)), results


def parse(text, opset=17):
    """Read a graph in ONNX's own notation."""
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> {text}')


def list_operators(model):
    return [f"{node.domain}:{node.op_type}".lstrip(":") for node in model.graph.node]


def list_interface(model):
    """Names, types and shapes of inputs and outputs."""
    return [(value.name, str(value.type)) for value in (*model.graph.input, *model.graph.output)]


def draw_feeds(model, seed, batch=3, generators=None):
    """Draw every input and every weight; free dimensions get the size ``batch``.

    ``generators`` draw inputs that are not standard normal.
    """
    random = np.random.default_rng(seed)
    feeds = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        shape = [size.dim_value or batch for size in kind.shape.dim]
        if value.name in (generators or {}):
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
            feeds[value.name] = np.asarray(generators[value.name](random, shape), dtype)
        else:
            # The fan-in is kept in check, or attention would only ever see one token.
            scale = 1 / np.sqrt(np.prod(shape[1:])) if "weight" in value.name else 1
            feeds[value.name] = np.asarray(scale * random.standard_normal(shape), np.float32)
    return feeds


def run_onnxruntime(model, feeds, operators=None, threads=0):
    """Run a graph; ``operators`` is the library of those that ONNX Runtime has not."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if operators is not None:
        options.register_custom_ops_library(str(operators))
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def run_openvino(model, feeds, operators=None):
    """Run a graph; ``operators`` is the library of those that OpenVINO has not."""
    core = openvino.Core()
    if operators is not None:
        core.add_extension(str(operators))
    properties = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", properties)
    # An input that nothing needs is none to OpenVINO.
    results = compiled({each: feeds[each.any_name] for each in compiled.inputs})
    return [results[index] for index in range(len(compiled.outputs))]


# Older releases of ONNX Runtime cannot load all operators of the standard dialect.
_READS_STANDARD = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 32)
RUNS = {
    Dialect.STANDARD: [run_openvino, *([run_onnxruntime] if _READS_STANDARD else [])],
    Dialect.MICROSOFT: [run_onnxruntime],
}


def relative_error(ours, reference):
    """The largest difference over all outputs, relative to the largest number of each."""
    return max(
        np.abs(each - wanted).max() / np.abs(wanted).max()
        for each, wanted in zip(ours, reference, strict=True)
    )
