"""What leads to a sine or cosine is told to stay as it is, and nothing else; its numbers stay."""

import numpy as np
import pytest

from fastdeploy_diffusion.engines.openvino_angles import keep_angles_exact

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
    keep_angles_exact(model)
    # Of a Squeeze or Unsqueeze, OpenVINO would forget it.
    assert list_marked(model) == ["Cos", "Multiply", "Reshape", "Sin"]
    assert len(model.get_parameters()) == 2
    assert len(model.get_results()) == 1


def test_the_numbers_stay():
    feeds = np.float32([801, 513]), np.float32([[1, -1, 2], [0, 3, -2]])
    model = build_model()
    wanted = compute(model.clone(), *feeds)
    keep_angles_exact(model)
    np.testing.assert_array_equal(compute(model.clone(), *feeds), wanted)


def test_a_model_without_angles_is_left_alone():
    op = openvino.opset8
    sample = op.parameter([2, 3], np.float32)
    model = openvino.Model([op.relu(sample)], [sample])
    keep_angles_exact(model)
    assert [each.get_type_name() for each in model.get_ordered_ops()] == [
        "Parameter",
        "Relu",
        "Result",
    ]
