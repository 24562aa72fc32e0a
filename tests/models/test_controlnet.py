import numpy as np
import paddle
import pytest
import torch
from diffusers import ControlNetModel as Reference
from diffusers import UNet2DConditionModel as ReferenceUNet
from drawn_parameters import draw_reference_parameters
from reference_weights import DRAWS, LARGEST_ERROR, copy_weights, relative_error

from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.networks.controlnet import ControlNetConfig
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.models.controlnet import ControlNetModel
from fastdeploy_diffusion.models.unet import UNet2DConditionModel

DOWN, CROSS_DOWN = "DownBlock2D", "CrossAttnDownBlock2D"
UP, CROSS_UP = "UpBlock2D", "CrossAttnUpBlock2D"
_SDXL = {
    "block_out_channels": (8, 16, 32),
    "down_block_types": (DOWN, CROSS_DOWN, CROSS_DOWN),
    "cross_attention_dim": 20,
    "attention_head_dim": [2, 4, 8],
    "transformer_layers_per_block": [1, 2, 3],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 16,
    "projection_class_embeddings_input_dim": 6 * 16 + 10,
    "norm_num_groups": 8,
}

# name → (config, (height, width) of the latents, batch)
CASES = {
    "sd1, four levels": (
        {
            "block_out_channels": (8, 16, 16, 24),
            "down_block_types": (CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, DOWN),
            "cross_attention_dim": 24,
            "attention_head_dim": 2,
            "norm_num_groups": 4,
        },
        (9, 14),
        3,
    ),
    "sd2, odd heads, colours reversed": (
        {
            "block_out_channels": (12, 24, 36),
            "layers_per_block": 1,
            "down_block_types": (DOWN, CROSS_DOWN, CROSS_DOWN),
            "cross_attention_dim": 20,
            "attention_head_dim": [1, 3, 9],
            "use_linear_projection": True,
            "norm_num_groups": 4,
            "controlnet_conditioning_channel_order": "bgr",
            "conditioning_embedding_out_channels": (4, 6),
        },
        (9, 13),
        2,
    ),
    "sdxl": (_SDXL, (15, 8), 3),
    "sdxl, no attention": (
        {
            **_SDXL,
            "down_block_types": (DOWN, DOWN, DOWN),
            "mid_block_type": "UNetMidBlock2D",
        },
        (8, 10),
        2,
    ),
    "pooled": (
        {
            "block_out_channels": (15,),
            "layers_per_block": 3,
            "down_block_types": (CROSS_DOWN,),
            "cross_attention_dim": 7,
            "attention_head_dim": 3,
            "norm_num_groups": 5,
            "flip_sin_to_cos": False,
            "freq_shift": 1,
            "in_channels": 3,
            "global_pool_conditions": True,
            "conditioning_embedding_out_channels": (6,),
        },
        (7, 11),
        2,
    ),
}


@pytest.mark.parametrize(("options", "size", "batch"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize(("seed", "scale"), DRAWS)
def test_parity_of_all_residuals(options, size, batch, seed, scale):
    reference = Reference(**options).eval()
    # The zero convolutions as well.
    draw_reference_parameters(reference, seed, scale)
    layer = ControlNetModel(ControlNetConfig.from_dict(dict(reference.config)))
    copy_weights(layer, reference)
    random = np.random.default_rng(seed)
    feeds = _draw_inputs(layer.config, size, batch, random)

    down, middle = _run_reference(reference, feeds)
    with paddle.no_grad():
        given = layer(*(paddle.to_tensor(feeds[name]) for name in layer.argument_names))

    assert len(given) == len(layer.config.skips) + 1
    for one, other in zip(given, [*down, middle], strict=True):
        assert relative_error(one, other) <= LARGEST_ERROR
    if not options.get("global_pool_conditions"):
        assert [(one.shape[1], one.shape[2]) for one in given[:-1]] == [
            (skip.channels, -(-size[0] // 2**skip.level)) for skip in layer.config.skips
        ]


@pytest.mark.parametrize("name", ["sd1, four levels", "sdxl"])
def test_a_unet_adds_residuals_as_the_reference(name):
    options, size, batch = CASES[name]
    ups = tuple(UP if each == DOWN else CROSS_UP for each in options["down_block_types"][::-1])
    reference = ReferenceUNet(**options, up_block_types=ups).eval()
    draw_reference_parameters(reference, 3)
    config = UNet2DConditionConfig.from_dict(dict(reference.config))
    layer = UNet2DConditionModel(config)
    copy_weights(layer, reference)
    random = np.random.default_rng(3)
    feeds = _draw_inputs(config, size, batch, random)
    residuals = [
        random.standard_normal(
            (batch, skip.channels, *(-(-side // 2**skip.level) for side in size)), np.float32
        )
        for skip in (*config.skips, config.skips[-1])
    ]

    with torch.no_grad():
        wanted = reference(
            *(torch.tensor(feeds[each]) for each in ("sample", "timestep")),
            encoder_hidden_states=torch.tensor(feeds["encoder_hidden_states"]),
            added_cond_kwargs=_added(feeds),
            down_block_additional_residuals=tuple(map(torch.tensor, residuals[:-1])),
            mid_block_additional_residual=torch.tensor(residuals[-1]),
        ).sample
    with paddle.no_grad():
        given = layer(*map(paddle.to_tensor, [*feeds.values(), *residuals]))

    assert relative_error(given, wanted) <= LARGEST_ERROR


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mid_block_type", "UNetMidBlock2DSimpleCrossAttn"),
        ("conditioning_channels", 4),
        ("controlnet_conditioning_channel_order", "hsv"),
        ("down_block_types", ["AttnDownBlock2D"] * 4),
        ("encoder_hid_dim", 64),
        ("class_embed_type", "timestep"),
        ("attention_head_dim", 7),
        ("up_block_types", ["UpBlock2D"] * 4),
    ],
)
def test_options_that_are_not_implemented_are_refused(key, value):
    with pytest.raises(Exception, match=key) as raised:
        ControlNetConfig.from_dict({key: value})
    assert isinstance(raised.value, UnsupportedModelError) or "makes no sense" in str(raised.value)


def _draw_inputs(config, size, batch, random):
    feeds = {
        "sample": random.standard_normal((batch, config.in_channels, *size), np.float32),
        "timestep": random.choice(1000, batch).astype(np.float32),
        "encoder_hidden_states": random.standard_normal(
            (batch, 7, config.context_dims[0]), np.float32
        ),
    }
    if config.addition_embed_type:
        feeds["text_embeds"] = random.standard_normal((batch, 10), np.float32)
        feeds["time_ids"] = random.integers(0, 1024, (batch, 6)).astype(np.float32)
    if isinstance(config, ControlNetConfig):
        pixels = (config.downscale * side for side in size)
        feeds["controlnet_cond"] = random.random((batch, 3, *pixels), np.float32)
    return feeds


def _added(feeds):
    names = [name for name in ("text_embeds", "time_ids") if name in feeds]
    return {name: torch.tensor(feeds[name]) for name in names} or None


def _run_reference(reference, feeds):
    names = ("sample", "timestep", "encoder_hidden_states", "controlnet_cond")
    with torch.no_grad():
        return reference(
            **{name: torch.tensor(feeds[name]) for name in names},
            added_cond_kwargs=_added(feeds),
            return_dict=False,
        )
