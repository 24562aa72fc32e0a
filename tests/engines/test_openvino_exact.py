"""Angles and statistics are told to stay as they are, and nothing else; the numbers stay."""

import numpy as np
import pytest

from fastdeploy_diffusion.engines.openvino_exact import keep_exact

openvino = pytest.importorskip("openvino")
FREQUENCIES = np.float32([[1.0, 0.1, 0.01]])


def build_model():
    """Sines and cosines of timesteps, as a UNet embeds them, and something beside them."""
    op = openvino.opset8
    timestep, sample = op.parameter([2], np.float32), op.parameter([2, 3], np.float32)
    column = op.unsqueeze(timestep, op.constant(np.int64(-1)))
    angles = op.multiply(column, op.constant(FREQUENCIES))
    embedded = op.concat([op.sin(angles), op.cos(angles)], -1)
    scaled = op.multiply(op.relu(sample), op.constant(np.float32([[2.0]])))
    return openvino.Model([op.concat([embedded, scaled], -1)], [timestep, sample])


def list_marked(model):
    """The operators with an attribute; the reader gives constants some of its own."""
    return sorted(
        node.get_type_name()
        for node in model.get_ordered_ops()
        if node.get_type_name() != "Constant"
        and {key for key in node.get_rt_info() if not key.startswith("fused_names")}
    )


def compute(model, *feeds):
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(list(feeds))[0]


def test_angles_are_kept_and_nothing_else():
    model = build_model()
    assert list_marked(model) == []
    keep_exact(model)
    # Of a Squeeze or Unsqueeze, OpenVINO would forget it.
    assert list_marked(model) == ["Cos", "Multiply", "Reshape", "Sin"]
    assert len(model.get_parameters()) == 2
    assert len(model.get_results()) == 1


def test_the_numbers_stay():
    feeds = np.float32([801, 513]), np.float32([[1, -1, 2], [0, 3, -2]])
    model = build_model()
    wanted = compute(model.clone(), *feeds)
    keep_exact(model)
    np.testing.assert_array_equal(compute(model.clone(), *feeds), wanted)


def test_a_model_without_angles_is_left_alone():
    op = openvino.opset8
    sample = op.parameter([2, 3], np.float32)
    model = openvino.Model([op.relu(sample)], [sample])
    keep_exact(model)
    assert [each.get_type_name() for each in model.get_ordered_ops()] == [
        "Parameter",
        "Relu",
        "Result",
    ]


def build_norm():
    """Pictures less their channels' means, times what is made of their norms, and a constant."""
    op = openvino.opset8
    picture = op.parameter([2, 3, 4, 5], np.float32)
    features = op.relu(picture)
    pixels = op.constant(np.int64([2, 3]))
    mean = op.reduce_mean(features, pixels, keep_dims=True)
    opposite = op.multiply(mean, op.constant(np.float32([-1.0])))
    norm = openvino.opset4.reduce_l2(features, pixels, keep_dims=True)
    scale = op.add(op.power(norm, op.constant(np.float32([2.0]))), opposite)
    result = op.multiply(op.add(features, opposite), scale)
    return openvino.Model([op.sigmoid(result)], [picture])


def test_statistics_are_kept_and_nothing_of_the_picture():
    model = build_norm()
    keep_exact(model)
    assert list_marked(model) == ["Add", "Multiply", "Power"]
    # The sums themselves read the picture, which is not to be widened for them.
    kinds = [each.get_type_name() for each in model.get_ordered_ops()]
    assert sorted(set(kinds)) == [
        *("Add", "Constant", "Multiply", "Parameter", "Power", "ReduceL2", "ReduceMean", "Relu"),
        *("Result", "Sigmoid"),
    ]
    assert len(model.get_parameters()) == 1
    assert len(model.get_results()) == 1


def test_the_numbers_of_statistics_stay():
    feed = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    model = build_norm()
    wanted = compute(model.clone(), feed)
    keep_exact(model)
    np.testing.assert_array_equal(compute(model.clone(), feed), wanted)


def test_means_of_tokens_are_no_statistics():
    op = openvino.opset8
    tokens = op.parameter([2, 3, 4], np.float32)
    mean = op.reduce_mean(tokens, op.constant(np.int64([2])), keep_dims=True)
    model = openvino.Model([op.multiply(op.exp(mean), tokens)], [tokens])
    keep_exact(model)
    assert list_marked(model) == []
