"""Flux's faster blocks are the same blocks."""

import numpy as np
import pytest
from drawn_parameters import draw_parameters

from fastdeploy_diffusion.families.networks.flux import FluxTransformer2DConfig
from fastdeploy_diffusion.models import flux_blocks
from fastdeploy_diffusion.models.flux import FluxTransformer2DModel
from fastdeploy_diffusion.paddle_runtime import paddle


@pytest.fixture
def speed_up_blocks(monkeypatch, request):
    monkeypatch.syspath_prepend(request.config.rootpath / "examples")
    # Set to what they are, so that they are set back after the test.
    for name in ("gelu_tanh", "shift_and_scale"):
        monkeypatch.setattr(flux_blocks, name, getattr(flux_blocks, name))
    attention = flux_blocks.FluxAttention
    monkeypatch.setattr(attention, "rotate", staticmethod(attention.rotate))
    from shapes.fast_blocks import speed_up_blocks

    return speed_up_blocks


def list_functions():
    attention = flux_blocks.FluxAttention
    return {attention.rotate, flux_blocks.gelu_tanh, flux_blocks.shift_and_scale}


def test_outputs_and_gradients_stay_the_same(speed_up_blocks):
    paddle.seed(0)
    config = FluxTransformer2DConfig(
        in_channels=8,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=12,
        num_attention_heads=2,
        joint_attention_dim=10,
        pooled_projection_dim=6,
        guidance_embeds=True,
        axes_dims_rope=(4, 2, 6),
    )
    transformer = FluxTransformer2DModel(config)
    draw_parameters(transformer)
    positions = paddle.randint(0, 9, [9, 3]).astype("float32")
    batch = [
        *(paddle.randn([3, 9, 8]), paddle.randn([3, 5, 10]), paddle.randn([3, 6])),
        *(paddle.rand([3]), positions, paddle.zeros([5, 3]), paddle.rand([3]) * 4),
    ]

    def learn() -> list[np.ndarray]:
        output = transformer(*batch)
        output.square().mean().backward()
        results = [output.numpy(), *(weight.grad.numpy() for weight in transformer.parameters())]
        transformer.clear_gradients()
        return results

    before = learn()
    functions = list_functions()
    speed_up_blocks(transformer)
    for ours, reference in zip(learn(), before, strict=True):
        np.testing.assert_allclose(ours, reference, atol=1e-5 * max(1, np.abs(reference).max()))
    assert not functions & list_functions()
