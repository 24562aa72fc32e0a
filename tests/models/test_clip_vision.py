import numpy as np
import paddle
import pytest
import torch
from drawn_parameters import draw_reference_parameters
from reference_weights import DRAWS, LARGEST_ERROR, copy_weights, relative_error
from transformers import CLIPVisionConfig as ReferenceConfig
from transformers import CLIPVisionModelWithProjection as Reference

from fastdeploy_diffusion.errors import CheckpointError, UnsupportedModelError
from fastdeploy_diffusion.families.networks.clip import CLIPVisionConfig
from fastdeploy_diffusion.models.clip_vision import CLIPVisionModelWithProjection
from fastdeploy_diffusion.models.components import ImageConditioner

CONFIGS = {
    "quick_gelu, 3 heads": {
        "hidden_size": 24,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "image_size": 32,
        "patch_size": 8,
    },
    "gelu, patches that leave a border": {
        "hidden_size": 20,
        "num_attention_heads": 5,
        "intermediate_size": 44,
        "num_hidden_layers": 5,
        "projection_dim": 12,
        "hidden_act": "gelu",
        "image_size": 31,
        "patch_size": 14,
    },
    "1 layer, wide projection": {
        "hidden_size": 16,
        "num_attention_heads": 1,
        "num_hidden_layers": 1,
        "projection_dim": 33,
        "layer_norm_eps": 1e-3,
        "image_size": 16,
        "patch_size": 16,
    },
}


@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize(("seed", "scale"), DRAWS)
def test_parity(options, seed, scale):
    config = ReferenceConfig(**options)
    reference = Reference(config).eval()
    draw_reference_parameters(reference, seed, scale)
    tower = CLIPVisionModelWithProjection(CLIPVisionConfig.from_dict(config.to_dict()))
    copy_weights(tower, reference)
    size = options["image_size"]
    pixels = np.random.default_rng(seed).standard_normal((3, 3, size, size)).astype(np.float32)

    with torch.no_grad():
        wanted = reference(torch.tensor(pixels), output_hidden_states=True)
    with paddle.no_grad():
        given = tower(paddle.to_tensor(pixels))
        embeds, penultimate = ImageConditioner(tower)(paddle.to_tensor(pixels))

    assert relative_error(given.image_embeds, wanted.image_embeds) <= LARGEST_ERROR
    for own, other in zip(given.hidden_states, wanted.hidden_states, strict=True):
        assert relative_error(own, other) <= LARGEST_ERROR
    assert relative_error(embeds, wanted.image_embeds) <= LARGEST_ERROR
    assert relative_error(penultimate, wanted.hidden_states[-2]) <= LARGEST_ERROR


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "relu"),
        ("model_type", "clip_text_model"),
        ("num_attention_heads", 7),
        ("num_channels", 4),
        ("patch_size", 999),
        ("brand_new_key", 1),
    ],
)
def test_what_is_not_implemented_is_named(key, value):
    with pytest.raises(UnsupportedModelError, match=key):
        CLIPVisionConfig.from_dict({key: value})


def test_sizes_that_make_no_sense_are_refused():
    with pytest.raises(CheckpointError, match="image_size"):
        CLIPVisionConfig.from_dict({"image_size": 0})
