"""The training's faster convolutions are the same convolutions."""

import numpy as np
import pytest
from paddle import nn

from fastdeploy_diffusion.paddle_runtime import paddle


@pytest.fixture
def speed_up(monkeypatch, request):
    monkeypatch.syspath_prepend(request.config.rootpath / "examples")
    from shapes.convolutions import speed_up

    return speed_up


@pytest.mark.parametrize("stride", [1, 2])
def test_outputs_and_gradients_stay_the_same(speed_up, stride):
    network = nn.Sequential(nn.Conv2D(3, 5, 3, stride=stride, padding=1), nn.Conv2D(5, 4, 1))
    for layer in network:
        layer.bias.set_value(paddle.randn(layer.bias.shape))
    pictures = paddle.randn([2, 3, 6, 9])

    def learn() -> list[np.ndarray]:
        output = network(pictures)
        output.square().mean().backward()
        results = [output.numpy(), *(weight.grad.numpy() for weight in network.parameters())]
        for weight in network.parameters():
            weight.clear_gradient()
        return results

    before = learn()
    speed_up(network)
    for ours, reference in zip(learn(), before, strict=True):
        np.testing.assert_allclose(ours, reference, atol=1e-6)
