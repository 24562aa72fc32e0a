"""Export to ONNX: no weights in the file, nothing wrong let through, every refusal explained."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from drawn_parameters import draw_parameters

from fastdeploy_diffusion import onnx_packages
from fastdeploy_diffusion.engines.paddle_layer import run_layer
from fastdeploy_diffusion.errors import EngineError, EngineUnavailableError
from fastdeploy_diffusion.export.onnx import export_onnx
from fastdeploy_diffusion.paddle_runtime import paddle
from fastdeploy_diffusion.runtime.manifest import check_manifest
from fastdeploy_diffusion.runtime.program import Program, TensorSpec
from fastdeploy_diffusion.runtime.recipe import Weight
from fastdeploy_diffusion.runtime.weights import read_weights

nn = paddle.nn
functional = nn.functional


class Block(nn.Layer):
    """Two parameters that are used, one that is not, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, 4, epsilon=1e-3)
        self.spare = nn.Linear(4, 4)
        self.register_buffer("offset", paddle.to_tensor([0.5]), persistable=False)

    def forward(self, sample):
        return functional.silu(self.norm(sample)) + self.offset


def make_program(layer=None, outputs=("result",)):
    if layer is None:
        layer = Block()
        draw_parameters(layer)
    layer.eval()
    return Program(
        "block",
        layer,
        (TensorSpec("sample", (None, 4, 5, 1), "float32"),),
        tuple(TensorSpec(name, (None, 4, 5, 1), "float32") for name in outputs),
    )


def make_layer(function):
    class Wrapped(nn.Layer):
        def forward(self, sample):
            return function(sample)

    return Wrapped()


def test_the_graph_takes_the_parameters_that_it_uses(tmp_path):
    program = make_program()
    graph = onnx.load(str(export_onnx(program, tmp_path / "new" / "folder"))).graph
    weights = check_manifest(program, tmp_path / "new" / "folder")
    assert weights == {name: Weight(name) for name in ("norm.weight", "norm.bias")}
    assert [value.name for value in graph.input] == ["sample", *weights]
    assert [value.name for value in graph.output] == ["result"]
    assert not graph.initializer
    sizes = graph.input[0].type.tensor_type.shape.dim
    assert [size.dim_value or size.dim_param for size in sizes] == ["sample.0", 4, 5, 1]


def test_the_parameters_can_be_initializers_without_values(tmp_path):
    path = export_onnx(make_program(), tmp_path, as_initializers=True)
    graph = onnx.load(str(path), load_external_data=False).graph
    assert [value.name for value in graph.input] == ["sample"]
    assert [value.name for value in graph.initializer] == ["norm.weight", "norm.bias"]
    assert not any(value.raw_data for value in graph.initializer)


def test_the_epsilon_of_a_group_norm_survives(tmp_path):
    for attempt in range(3):  # without the repair it differs from run to run
        graph = onnx.load(str(export_onnx(make_program(), tmp_path / str(attempt)))).graph
        (norm,) = [node for node in graph.node if node.op_type == "InstanceNormalization"]
        (epsilon,) = [each.f for each in norm.attribute if each.name == "epsilon"]
        assert epsilon == np.float32(1e-3)


def test_a_layer_without_values_is_exported(tmp_path):
    with paddle.LazyGuard():
        layer = nn.Linear(1, 1)
    program = make_program(layer)
    export_onnx(program, tmp_path)
    assert list(check_manifest(program, tmp_path)) == ["weight", "bias"]


def test_the_layer_is_not_changed(tmp_path):
    program = make_program()
    feeds = {"sample": np.random.default_rng(0).standard_normal((2, 4, 5, 1)).astype("float32")}
    before, weights = run_layer(program, feeds)["result"], dict(program.layer.named_parameters())
    export_onnx(program, tmp_path)
    assert paddle.in_dynamic_mode()
    np.testing.assert_array_equal(run_layer(program, feeds)["result"], before)
    after = dict(program.layer.named_parameters())
    assert all(after[name] is weights[name] for name in weights)


def test_the_weight_of_a_linear_layer_has_the_checkpoints_layout(tmp_path):
    program = make_program(nn.Linear(1, 3), outputs=("result",))
    graph = onnx.load(str(export_onnx(program, tmp_path))).graph
    (weight,) = [value for value in graph.input if value.name == "weight"]
    assert [size.dim_value for size in weight.type.tensor_type.shape.dim] == [3, 1]
    read = read_weights(program, check_manifest(program, tmp_path))
    np.testing.assert_array_equal(read["weight"], program.layer.weight.numpy().T)
    assert read["weight"].flags.c_contiguous


class Stored(dict):
    """Tensors as a checkpoint would give them."""

    read = read_stored = dict.__getitem__


def test_weights_come_from_where_the_program_says(tmp_path):
    stored = Stored({"weight": np.full((1, 1), 3.0, "float32")})
    with paddle.LazyGuard():
        layer = nn.Linear(1, 1)
    program = replace(make_program(layer), tensors=stored)
    assert read_weights(program, {"weight": Weight("weight")})["weight"] is stored["weight"]


def test_weights_are_read_in_place():
    program = make_program()
    weights = read_weights(program, {"norm.weight": Weight("norm.weight")})
    with paddle.no_grad():
        program.layer.norm.weight.fill_(7.0)
    np.testing.assert_array_equal(weights["norm.weight"], np.full(4, 7.0, "float32"))


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (paddle.erfinv, "erfinv"),
        (lambda sample: sample + paddle.randn([4, 5, 1]), "gaussian"),
        (lambda sample: functional.leaky_relu(sample, 0.2), "leaky_relu"),
        (lambda sample: functional.gelu(sample, approximate=True), "gelu with approximate=True"),
    ],
)
def test_an_operator_that_cannot_be_converted_is_named(function, named, tmp_path):
    with pytest.raises(EngineError, match=f"block: {named}.* cannot be exported to ONNX"):
        export_onnx(make_program(make_layer(function)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_operator_that_kills_the_converter_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "fastdeploy_diffusion.export.onnx_operators.EXPORTABLE",
        frozenset({"data", "erfinv", "fetch"}),
    )
    with pytest.raises(EngineError, match="block: Paddle2ONNX ended with code -6"):
        export_onnx(make_program(make_layer(paddle.erfinv)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_number_of_outputs_is_refused(tmp_path):
    with pytest.raises(EngineError, match="returns 1 tensors, not 2"):
        export_onnx(make_program(outputs=("result", "extra")), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_converter_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_packages, "NEEDED", ("paddle2onnx", "no_such_package"))
    with pytest.raises(EngineUnavailableError, match="no_such_package") as caught:
        export_onnx(make_program(), tmp_path)
    assert "pip install" in caught.value.fix
