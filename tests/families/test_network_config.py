"""Values of a config.json that make no sense are refused by name, before a layer is made."""

import dataclasses
import math
import time

import pytest

from fastdeploy_diffusion.errors import BadInputError, CheckpointError, UnsupportedModelError
from fastdeploy_diffusion.families.networks.autoencoder import AutoencoderKLConfig
from fastdeploy_diffusion.families.networks.clip import CLIPTextConfig
from fastdeploy_diffusion.families.networks.flux import FluxTransformer2DConfig
from fastdeploy_diffusion.families.networks.t5 import T5Config
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.families.published.flux import FLUX_DEV, FLUX_SCHNELL
from fastdeploy_diffusion.families.published.sd import SD_1_5, SD_2_1, SDXL_BASE

CONFIGS = {
    CLIPTextConfig: SD_1_5["text_encoder"],
    UNet2DConditionConfig: SDXL_BASE["unet"],
    AutoencoderKLConfig: FLUX_DEV["vae"],
    T5Config: FLUX_DEV["text_encoder_2"],
    FluxTransformer2DConfig: FLUX_DEV["transformer"],
}
FIELDS = [
    (cls, field.name)
    for cls in CONFIGS
    for field in dataclasses.fields(cls)
    if field.name != "addition_embed_type"  # one of two texts
]
NONSENSE = [10**9, 10**400, -1, -0.5, math.nan, math.inf, -math.inf, "77", "", {}, {"a": 1}]
NONSENSE += [[], [[]], [None], [0], ["x"], [1e9], [1] * 99, 10**18, 1e300, "\ud800", "y" * 10_000]


@pytest.mark.parametrize(("cls", "key"), FIELDS, ids=lambda each: getattr(each, "__name__", each))
def test_nonsense_is_refused_by_name(cls, key):
    for value in NONSENSE:
        if key == "shift_factor" and value in (-1, -0.5):
            continue  # numbers like any other there
        started = time.perf_counter()
        with pytest.raises(BadInputError) as caught:
            cls.from_dict({**CONFIGS[cls], key: value})
        assert key in caught.value.problem, value
        assert len(str(caught.value)) < 1000
        assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    ("cls", "key", "value", "allowed"),
    [
        (CLIPTextConfig, "max_position_embeddings", "77", "valid integer"),
        (CLIPTextConfig, "num_hidden_layers", 10**6, "less than or equal to 500"),
        (CLIPTextConfig, "num_hidden_layers", True, "valid integer"),
        (UNet2DConditionConfig, "attention_head_dim", 0, "greater than or equal to 1, or a list"),
        (UNet2DConditionConfig, "layers_per_block", 10**5, "less than or equal to 500"),
        (UNet2DConditionConfig, "layers_per_block", [2, 2, 0], "greater than or equal to 1"),
        (UNet2DConditionConfig, "flip_sin_to_cos", 1, "valid boolean"),
        (UNet2DConditionConfig, "down_block_types", "DownBlock2D", "a list"),
        (CLIPTextConfig, "layer_norm_eps", 0.5, "less than or equal to 0.001"),
        (AutoencoderKLConfig, "scaling_factor", 0, "greater than or equal to 0.000001"),
        (T5Config, "relative_attention_max_distance", 10**9, "less than or equal to 65536"),
        (FluxTransformer2DConfig, "guidance_embeds", "yes", "valid boolean"),
    ],
)
def test_what_is_allowed_is_told(cls, key, value, allowed):
    with pytest.raises(CheckpointError, match=f"{key} = ") as caught:
        cls.from_dict({**CONFIGS[cls], key: value})
    assert allowed in caught.value.allowed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"freq_shift": 1, "block_out_channels": [3], "norm_num_groups": 3}, "too narrow"),
        ({"addition_time_embed_dim": 1}, "addition_time_embed_dim begins with 1, too narrow"),
        ({"projection_class_embeddings_input_dim": 6 * 256}, "leaves no room for a text"),
    ],
)
def test_widths_that_leave_nothing(change, message):
    one_block = {
        "down_block_types": ["CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D"],
        "attention_head_dim": 1,
        "transformer_layers_per_block": 1,
    }
    more = one_block if "block_out_channels" in change else {}
    with pytest.raises(UnsupportedModelError, match=message):
        UNet2DConditionConfig.from_dict({**SDXL_BASE["unet"], **more, **change})


@pytest.mark.parametrize("published", [SD_1_5, SD_2_1, SDXL_BASE, FLUX_DEV, FLUX_SCHNELL])
def test_published_configs_are_read(published):
    classes = {
        "text_encoder": CLIPTextConfig,
        "text_encoder_2": T5Config if "transformer" in published else CLIPTextConfig,
        "unet": UNet2DConditionConfig,
        "transformer": FluxTransformer2DConfig,
        "vae": AutoencoderKLConfig,
    }
    for name in published.keys() & classes.keys():
        config = classes[name].from_dict(published[name])
        known = {field.name for field in dataclasses.fields(config)}
        for key, value in published[name].items():
            if key in known:
                as_list = getattr(config, key)
                as_list = list(as_list) if isinstance(as_list, tuple) else as_list
                assert as_list == value, key
