"""A training run that was stopped goes on as if nothing had happened."""

import numpy as np
import pytest
from paddle import nn
from paddle.utils import unique_name

from fastdeploy_diffusion.paddle_runtime import paddle

STEPS = 6


@pytest.fixture
def training_run(monkeypatch, request):
    monkeypatch.syspath_prepend(request.config.rootpath / "examples")
    from shapes.training_run import TrainingRun

    return TrainingRun


def train(training_run, path, stop: int) -> dict[str, np.ndarray]:
    """Go on with the run at ``path``, and leave it before step ``stop``."""
    paddle.seed(1)
    layer = nn.Linear(4, 3)
    run = training_run(path, {"layer": layer}, steps=STEPS, learning_rate=0.1)
    for random in run.run(save_every=1):
        if run.step == stop:
            break
        inputs = paddle.to_tensor(random.standard_normal((5, 4), np.float32))
        run.learn((layer(inputs) - inputs.sum()).square().mean())
    trained = {key: weight.numpy() for key, weight in run.weights.items()}
    with run.averaged():
        average = {f"average {key}": weight.numpy() for key, weight in run.weights.items()}
    # The layer has its own weights back.
    for key, weight in run.weights.items():
        np.testing.assert_array_equal(weight.numpy(), trained[key])
    return trained | average


def test_a_run_in_parts_equals_a_run_in_one_go(training_run, tmp_path):
    def train_to(name: str, stop: int) -> dict[str, np.ndarray]:
        # As in a new process: the optimizer's state goes by names that are counted.
        with unique_name.guard():
            return train(training_run, tmp_path / f"{name}.safetensors", stop)

    whole = train_to("whole", STEPS)
    first = train_to("parts", 2)
    assert any((first[key] != whole[key]).any() for key in whole)
    train_to("parts", 5)
    in_parts = train_to("parts", STEPS)
    for key, value in whole.items():
        np.testing.assert_array_equal(in_parts[key], value, err_msg=key)
    assert (whole["layer.weight"] != whole["average layer.weight"]).any()
