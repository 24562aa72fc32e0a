"""A graph in half precision: its types, its islands, and what each runtime gets of it."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from drawn_parameters import draw_parameters
from onnx import TensorProto, helper

from fastdeploy_diffusion.export.half_precision import convert_to_half
from fastdeploy_diffusion.export.onnx import export_onnx
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.passes.graph.split_geglu import SplitGEGLU
from fastdeploy_diffusion.runtime.manifest import check_manifest
from fastdeploy_diffusion.runtime.program import Program, TensorSpec
from fastdeploy_diffusion.runtime.recipe import Weight
from fastdeploy_diffusion.runtime.weights import read_weights

CONFIG = {
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": 8,
    "norm_num_groups": 4,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 24,
    "attention_head_dim": 2,
}
FLOAT, HALF, BRAIN = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    """The program of a small UNet, and its float32 graph with its weights' names."""
    layer = UNet2DConditionModel(UNet2DConditionConfig.from_dict(CONFIG))
    draw_parameters(layer)
    layer.eval()
    sample = TensorSpec("sample", (None, 4, 9, 13), "float32")
    inputs = (
        sample,
        TensorSpec("timestep", (None,), "float32"),
        TensorSpec("encoder_hidden_states", (None, 7, 24), "float32"),
    )
    program = Program("unet", layer, inputs, (replace(sample, name="prediction"),))
    folder = tmp_path_factory.mktemp("graph")
    path = export_onnx(program, folder, as_initializers=True)
    return program, path.read_bytes(), list(check_manifest(program, folder))


def infer_types(model):
    """Types by name; raises where an operator gets what its definition does not allow."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    graph = inferred.graph
    known = {each.name: each.data_type for each in graph.initializer}
    for each in (*graph.input, *graph.output, *graph.value_info):
        known[each.name] = each.type.tensor_type.elem_type
    return graph, known


def convert(unet, folder, precision, **options):
    _, content, weights = unet
    path = folder / "graph.onnx"
    path.write_bytes(content)
    types = convert_to_half(path, weights, precision, **options)
    return onnx.load(str(path), load_external_data=False), types


def test_operators_compute_in_fp16_between_float32_inputs_and_outputs(unet, tmp_path):
    model, halved = convert(unet, tmp_path, "fp16")
    graph, types = infer_types(model)
    program = unet[0]
    names = [each.name for each in (*program.inputs, *program.outputs)]
    assert [each.name for each in (*graph.input, *graph.output)] == names
    assert {types[name] for name in names} == {FLOAT}
    by_operator = {}
    for node in graph.node:
        by_operator.setdefault(node.op_type, set()).add(types[node.output[0]])
    for operator in ("Conv", "MatMul", "Softmax", "Erf"):
        assert by_operator[operator] == {HALF}
    for operator in ("InstanceNormalization", "LayerNormalization", "Sin", "Cos"):
        assert by_operator[operator] == {FLOAT}
    assert by_operator["Shape"] == {TensorProto.INT64}
    stored = {each.name: each.data_type for each in graph.initializer}
    assert {name for name, dtype in stored.items() if dtype == HALF} == halved.keys()
    assert set(halved.values()) == {"float16"}
    # What stays are the scales and shifts of LayerNormalization.
    assert all(".norm" in name for name in stored.keys() - halved.keys())


def test_angles_are_computed_in_float32(unet, tmp_path):
    graph, types = infer_types(convert(unet, tmp_path, "fp16")[0])
    producers = {name: node for node in graph.node for name in node.output}
    wanted = [name for node in graph.node if node.op_type in ("Sin", "Cos") for name in node.input]
    reached = set()
    while wanted:
        name = wanted.pop()
        assert types[name] != HALF
        reached.add(name)
        wanted += list(producers[name].input) if name in producers else []
    assert "timestep" in reached


def find_normed(graph, types, inputs):
    """What is made of nothing but norms' results and weights, on its way to the next product."""
    normed, computed = set(), set(inputs)
    for node in graph.node:
        read = {name for name in node.input if name in computed and types[name] in (FLOAT, HALF)}
        if computed & set(node.input):
            computed |= set(node.output)
        is_norm = node.op_type in ("InstanceNormalization", "LayerNormalization")
        if is_norm or (node.op_type in FOLLOWERS and read and read <= normed):
            normed |= set(node.output)
    return normed


# Scale and shift of a group norm, SiLU, and what brings them into shape.
FOLLOWERS = ("Reshape", "Transpose", "Unsqueeze", "Mul", "Add", "Sigmoid")


def test_what_follows_a_norm_stays_in_float32_up_to_the_next_product(unet, tmp_path):
    graph, types = infer_types(convert(unet, tmp_path, "fp16")[0])
    normed = find_normed(graph, types, [each.name for each in unet[0].inputs])
    found = {}
    for node in graph.node:
        if normed & set(node.output):
            found.setdefault(node.op_type, set()).add(types[node.output[0]])
    assert {"Mul", "Add", "Sigmoid", "Reshape"} <= found.keys()
    assert all(kinds == {FLOAT} for kinds in found.values()), found
    # The timestep's SiLU follows no norm.
    others = [node for node in graph.node if node.op_type == "Sigmoid"]
    halves = [node for node in others if not normed & set(node.output)]
    assert {types[node.output[0]] for node in halves} == {HALF}


@pytest.mark.parametrize(
    ("operator", "is_half"),
    [
        *((name, False) for name in ("Exp", "Sqrt", "Sin", "Cos", "Log", "Reciprocal", "Abs")),
        *((name, False) for name in ("ReduceMean", "ReduceSum", "CumSum", "Pow")),
        *((name, True) for name in ("Neg", "Relu", "Tanh", "Erf", "Sigmoid", "Softmax", "Where")),
        *((name, True) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "MatMul")),
    ],
)
def test_only_what_is_known_to_bear_it_runs_in_half(operator, is_half, tmp_path):
    """Exponentials, roots and sums would overflow, or add up what rounding left."""
    twice = ("Add", "Sub", "Mul", "Div", "Max", "Min", "MatMul", "Pow")
    operands = ["x", "x"] if operator in twice else ["x"]
    constants = []
    if operator == "Where":
        value = helper.make_tensor("", TensorProto.BOOL, [3], [True, False, True])
        constants.append(helper.make_node("Constant", [], ["condition"], value=value))
        operands = ["condition", "x", "x"]
    if operator == "CumSum":
        value = helper.make_tensor("", TensorProto.INT64, [], [1])
        constants.append(helper.make_node("Constant", [], ["axis"], value=value))
        operands.append("axis")
    nodes = [*constants, helper.make_node(operator, operands, ["y"])]
    given = helper.make_tensor_value_info("x", FLOAT, [3, 3])
    graph = helper.make_graph(
        nodes, "one", [given], [helper.make_tensor_value_info("y", FLOAT, None)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    path = tmp_path / "graph.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model), str(path))
    convert_to_half(path, [], "fp16")
    converted, types = infer_types(onnx.load(str(path)))
    (node,) = [each for each in converted.node if each.op_type == operator]
    assert types[node.output[0]] == (HALF if is_half else FLOAT)
    assert [types[each.name] for each in (*converted.input, *converted.output)] == [FLOAT, FLOAT]


def test_for_float32_kernels_every_result_is_rounded(unet, tmp_path):
    model, halved = convert(unet, tmp_path, "bf16", float32_kernels=True)
    graph, types = infer_types(model)
    assert set(halved.values()) == {"bfloat16"}
    for node in graph.node:
        if node.op_type in ("Conv", "MatMul", "Softmax", "Mul"):
            assert types[node.output[0]] == FLOAT
    readers = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in graph.node:
        if node.op_type in ("Conv", "MatMul"):
            (reader,) = readers[node.output[0]]
            if reader.op_type == "Add":  # the bias comes before the rounding
                (reader,) = readers[reader.output[0]]
            assert types[reader.output[0]] == BRAIN


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", "float16"), ("bf16", "bfloat16")])
def test_weights_are_bound_in_half_the_memory(precision, dtype, unet, tmp_path):
    program, _, names = unet
    types = dict.fromkeys(names, "float32") | convert(unet, tmp_path, precision)[1]
    bound = read_weights(program, {name: Weight(name, types[name]) for name in types})
    assert {name: array.dtype.name for name, array in bound.items()} == types
    full = read_weights(program, {name: Weight(name) for name in types})
    size = sum(array.nbytes for array in bound.values())
    # All but the norms' scales and shifts, which are many in so small a network.
    assert size <= 0.53 * sum(array.nbytes for array in full.values())
    name = next(name for name in types if types[name] == dtype)
    np.testing.assert_allclose(bound[name].astype("float32"), full[name], rtol=2**-8)


def test_constants_beyond_the_range_stay_finite(tmp_path):
    path = tmp_path / "graph.onnx"
    constants = [
        helper.make_node("Constant", [], [name], value=helper.make_tensor("", FLOAT, [1], [value]))
        for name, value in (("mask", -1e9), ("never", -np.inf))
    ]
    nodes = [
        *constants,
        helper.make_node("Add", ["x", "mask"], ["a"]),
        helper.make_node("Add", ["a", "never"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "masks", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    assert convert_to_half(path, [], "fp16") == {}
    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)
    kept = [
        onnx.numpy_helper.to_array(node.attribute[0].t)
        for node in model.graph.node
        if node.op_type == "Constant"
    ]
    assert [(array.dtype, array.item()) for array in kept] == [
        ("float16", -65504),
        ("float16", -np.inf),
    ]


def test_what_graph_passes_wrote_is_converted(unet, tmp_path):
    program = replace(unet[0], graph_passes=(SplitGEGLU(),))
    path = export_onnx(program, tmp_path, as_initializers=True, precision="fp16")
    graph, types = infer_types(onnx.load(str(path), load_external_data=False))
    # The pass took every value and gate apart, by slices whose bounds are bare numbers.
    assert not [node for node in graph.node if node.op_type == "Split"]
    slices = [node for node in graph.node if node.op_type == "Slice"]
    assert HALF in {types[node.output[0]] for node in slices}
    constants = [node for node in graph.node if node.op_type == "Constant"]
    assert {each.name for node in constants for each in node.attribute} == {"value"}
