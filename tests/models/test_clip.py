import numpy as np
import paddle
import pytest
import torch
from drawn_parameters import draw_reference_parameters
from reference_weights import DRAWS, LARGEST_ERROR, copy_weights, relative_error
from transformers import CLIPTextConfig as ReferenceConfig
from transformers import CLIPTextModel as Reference
from transformers import CLIPTextModelWithProjection as ReferenceWithProjection

from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.networks.clip import CLIPTextConfig
from fastdeploy_diffusion.models.clip import CLIPTextModel, CLIPTextModelWithProjection

SPECIAL = {"bos_token_id": 0, "pad_token_id": 1}
CONFIGS = {
    "quick_gelu, 3 heads": {
        "hidden_size": 24,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "vocab_size": 99,
        "eos_token_id": 98,
    },
    "gelu, legacy end token": {
        "hidden_size": 20,
        "num_attention_heads": 5,
        "intermediate_size": 44,
        "num_hidden_layers": 5,
        "vocab_size": 99,
        "eos_token_id": 2,
        "projection_dim": 12,
        "hidden_act": "gelu",
    },
    "1 head, wide projection": {
        "hidden_size": 16,
        "num_attention_heads": 1,
        "num_hidden_layers": 1,
        "vocab_size": 50,
        "eos_token_id": 7,
        "projection_dim": 33,
        "layer_norm_eps": 1e-3,
    },
}
MODELS = [(CLIPTextModel, Reference), (CLIPTextModelWithProjection, ReferenceWithProjection)]


@pytest.mark.parametrize(("model", "reference_model"), MODELS, ids=["plain", "projection"])
@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("length", [11, 77])
@pytest.mark.parametrize(("seed", "scale"), DRAWS)
def test_parity(model, reference_model, options, length, seed, scale):
    config = ReferenceConfig(**SPECIAL, **options)
    reference = reference_model(config).eval()
    draw_reference_parameters(reference, seed, scale)
    layer = model(CLIPTextConfig.from_dict(config.to_dict()))
    copy_weights(layer, reference)
    end = options["eos_token_id"] if options["eos_token_id"] != 2 else options["vocab_size"] - 1
    random = np.random.default_rng(length)
    input_ids = random.integers(8, 40, (3, length))
    for row, position in zip(input_ids, (4, 8, length - 1), strict=True):
        row[position:] = end

    with torch.no_grad():
        wanted = reference(torch.tensor(input_ids), output_hidden_states=True)
    with paddle.no_grad():
        given = layer(paddle.to_tensor(input_ids))

    pooled = wanted.text_embeds if model is CLIPTextModelWithProjection else wanted.pooler_output
    assert relative_error(given.last_hidden_state, wanted.last_hidden_state) <= LARGEST_ERROR
    assert relative_error(given.pooled, pooled) <= LARGEST_ERROR
    for own, other in zip(given.hidden_states, wanted.hidden_states, strict=True):
        assert relative_error(own, other) <= LARGEST_ERROR


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "relu"),
        ("model_type", "t5"),
        ("num_attention_heads", 7),
        ("use_attention_mask", True),
        ("brand_new_key", 1),
    ],
)
def test_what_is_not_implemented_is_named(key, value):
    with pytest.raises(UnsupportedModelError, match=key):
        CLIPTextConfig.from_dict({key: value})
