"""UNets with downsampled tokens beside diffusers', whose attention is replaced by one in torch."""

import paddle
import pytest
import torch
from diffusers import UNet2DConditionModel as Reference
from drawn_parameters import draw_reference_parameters
from reference_weights import DRAWS, LARGEST_ERROR, copy_weights, relative_error
from test_unet import CASES, draw_inputs, predict

from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.passes.base import apply_passes
from fastdeploy_diffusion.passes.layer.downsample_tokens import DownsampleTokens

# By case: the blocks of the largest resolution with attention, its size, and its self-attentions.
FINEST = {
    "sd1": (("down_blocks.0.", "up_blocks.1."), (12, 20), 5),
    "sd2, odd heads, odd sizes": (("down_blocks.1.", "up_blocks.1."), (5, 7), 3),
    "sdxl": (("down_blocks.1.", "up_blocks.1."), (8, 4), 2 * 2 + 2 * 3),
    "one level, odd width, sines first": (
        ("down_blocks.0.", "up_blocks.0.", "mid_block."),
        (7, 11),
        3 + 4 + 1,
    ),
}


class Processor:
    """Attends to the tokens of even rows and columns, as a list of their places."""

    def __init__(self, height, width):
        self.tokens = height * width
        self.kept = [
            row * width + column for row in range(0, height, 2) for column in range(0, width, 2)
        ]

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        assert encoder_hidden_states is None
        assert hidden_states.shape[1] == self.tokens
        kept = hidden_states[:, self.kept]
        query, key, value = (
            project(tokens).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for project, tokens in (
                (attn.to_q, hidden_states),
                (attn.to_k, kept),
                (attn.to_v, kept),
            )
        )
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        attended = scores.softmax(-1) @ value
        return attn.to_out[0](attended.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("name", FINEST)
@pytest.mark.parametrize(("seed", "scale"), DRAWS)
def test_parity(name, seed, scale):
    (options, size, batch), (blocks, finest, count) = CASES[name], FINEST[name]
    reference = Reference(**options).eval()
    draw_reference_parameters(reference, seed, scale)
    layer = UNet2DConditionModel(UNet2DConditionConfig.from_dict(dict(reference.config)))
    copy_weights(layer, reference)
    (result,), weights = apply_passes([DownsampleTokens()], layer, strict=True)
    assert (result.count, result.expected, weights) == (count, count, {})

    inputs = draw_inputs(reference, size, batch, seed)
    plain = predict(reference, inputs)
    chosen = [
        each
        for each in reference.attn_processors
        if each.startswith(blocks) and each.endswith("attn1.processor")
    ]
    assert len(chosen) == count
    own = dict.fromkeys(chosen, Processor(*finest))
    reference.set_attn_processor({**reference.attn_processors, **own})
    with paddle.no_grad():
        given = layer(*(paddle.to_tensor(array) for array in inputs))
    assert relative_error(given, predict(reference, inputs)) <= LARGEST_ERROR
    # The picture is another one, and not by rounding: with small weights a token is like its mean.
    assert scale < 1 or relative_error(given, plain) > 100 * LARGEST_ERROR


@pytest.mark.parametrize("size", [(8, 6), (2, 2), (64, 96)])
def test_of_even_sizes_it_is_the_nearest_interpolation(size):
    """ToDo downsamples by nearest interpolation, which keeps the first pixel of each four."""
    grid = torch.arange(float(size[0] * size[1])).reshape(1, 1, *size)
    nearest = torch.nn.functional.interpolate(grid, scale_factor=0.5, mode="nearest")
    assert nearest.flatten().tolist() == Processor(*size).kept
