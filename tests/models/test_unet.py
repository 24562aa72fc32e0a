import numpy as np
import paddle
import pytest
import torch
from diffusers import UNet2DConditionModel as Reference
from drawn_parameters import draw_reference_parameters
from reference_weights import DRAWS, LARGEST_ERROR, copy_weights, relative_error

from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.models.unet import UNet2DConditionModel

DOWN, CROSS_DOWN = "DownBlock2D", "CrossAttnDownBlock2D"
UP, CROSS_UP = "UpBlock2D", "CrossAttnUpBlock2D"

# name → (config, (height, width) of the latents, batch)
CASES = {
    "sd1": (
        {
            "block_out_channels": (8, 16),
            "layers_per_block": 2,
            "down_block_types": (CROSS_DOWN, DOWN),
            "up_block_types": (UP, CROSS_UP),
            "cross_attention_dim": 24,
            "attention_head_dim": 2,
            "norm_num_groups": 4,
        },
        (12, 20),
        3,
    ),
    "sd2, odd heads, odd sizes": (
        {
            "block_out_channels": (12, 24, 36),
            "layers_per_block": 1,
            "down_block_types": (DOWN, CROSS_DOWN, CROSS_DOWN),
            "up_block_types": (CROSS_UP, CROSS_UP, UP),
            "cross_attention_dim": 20,
            "attention_head_dim": [1, 3, 9],
            "use_linear_projection": True,
            "norm_num_groups": 4,
            "upcast_attention": True,
        },
        (9, 13),
        2,
    ),
    "sdxl": (
        {
            "block_out_channels": (8, 16, 32),
            "layers_per_block": 2,
            "down_block_types": (DOWN, CROSS_DOWN, CROSS_DOWN),
            "up_block_types": (CROSS_UP, CROSS_UP, UP),
            "cross_attention_dim": 20,
            "attention_head_dim": [2, 4, 8],
            "transformer_layers_per_block": [1, 2, 3],
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 16,
            "projection_class_embeddings_input_dim": 6 * 16 + 10,
            "norm_num_groups": 8,
        },
        (15, 8),
        3,
    ),
    "one level, odd width, sines first": (
        {
            "block_out_channels": (15,),
            "layers_per_block": 3,
            "down_block_types": (CROSS_DOWN,),
            "up_block_types": (CROSS_UP,),
            "cross_attention_dim": 7,
            "attention_head_dim": 3,
            "norm_num_groups": 5,
            "flip_sin_to_cos": False,
            "freq_shift": 1,
            "in_channels": 3,
            "out_channels": 6,
        },
        (7, 11),
        1,
    ),
}


def draw_inputs(reference, size, batch, seed):
    """Latents, timesteps and texts; of SDXL its pooled texts and sizes, too."""
    random, config = np.random.default_rng(seed), reference.config
    inputs = [
        random.standard_normal((batch, config.in_channels, *size), np.float32),
        random.choice(1000, batch).astype(np.float32),
        random.standard_normal((batch, 7, config.cross_attention_dim), np.float32),
    ]
    if config.addition_embed_type is not None:
        inputs.append(random.standard_normal((batch, 10), np.float32))
        inputs.append(random.integers(0, 1024, (batch, 6)).astype(np.float32))
    return inputs


def predict(reference, inputs):
    tensors = [torch.tensor(array) for array in inputs]
    names = ("text_embeds", "time_ids")
    added = dict(zip(names, tensors[3:], strict=True)) if tensors[3:] else None
    with torch.no_grad():
        return reference(*tensors[:3], added_cond_kwargs=added).sample


@pytest.mark.parametrize(("options", "size", "batch"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize(("seed", "scale"), DRAWS)
def test_parity(options, size, batch, seed, scale):
    reference = Reference(**options).eval()
    draw_reference_parameters(reference, seed, scale)
    layer = UNet2DConditionModel(UNet2DConditionConfig.from_dict(dict(reference.config)))
    copy_weights(layer, reference)
    inputs = draw_inputs(reference, size, batch, seed)
    wanted = predict(reference, inputs)
    with paddle.no_grad():
        given = layer(*(paddle.to_tensor(array) for array in inputs))

    assert relative_error(given, wanted) <= LARGEST_ERROR


def test_a_number_of_heads_wins_over_the_key_that_was_named_wrongly():
    """``attention_head_dim`` has always held numbers of heads; the other key says so."""
    config = UNet2DConditionConfig.from_dict({"attention_head_dim": 5})
    assert config.heads == (5, 5, 5, 5)
    named = UNet2DConditionConfig.from_dict({"attention_head_dim": 5, "num_attention_heads": 4})
    assert named.heads == (4, 4, 4, 4)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("act_fn", "gelu"),
        ("addition_embed_type", "image"),
        ("class_embed_type", "timestep"),
        ("conv_in_kernel", 5),
        ("down_block_types", ["AttnDownBlock2D"] * 4),
        ("dual_cross_attention", True),
        ("encoder_hid_dim", 64),
        ("mid_block_type", "UNetMidBlock2DSimpleCrossAttn"),
        ("resnet_time_scale_shift", "scale_shift"),
        ("time_cond_proj_dim", 256),
        ("layers_per_block", [1, 2]),
        ("attention_head_dim", 7),
        ("norm_num_groups", 7),
        ("cross_attention_dim", [8, 8, 8, 16]),
        ("brand_new_key", 1),
    ],
)
def test_what_is_not_implemented_is_named(key, value):
    with pytest.raises(UnsupportedModelError, match=key):
        UNet2DConditionModel(UNet2DConditionConfig.from_dict({key: value}))
