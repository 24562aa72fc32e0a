import numpy as np
import paddle
import pytest
import torch
from drawn_parameters import draw_reference_parameters
from reference_weights import DRAWS, LARGEST_ERROR, copy_weights, relative_error
from transformers import T5Config as ReferenceConfig
from transformers import T5EncoderModel as Reference
from transformers.models.t5.modeling_t5 import T5Attention

from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.networks.t5 import T5Config
from fastdeploy_diffusion.models.t5 import T5EncoderModel, list_buckets

# name → (config, tokens)
CASES = {
    "far beyond the last bucket": (
        {"d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 3, "num_heads": 3, "vocab_size": 99},
        150,
    ),
    "few buckets, heads wider than the model": (
        {
            "d_model": 20,
            "d_kv": 12,
            "d_ff": 33,
            "num_layers": 1,
            "num_heads": 5,
            "vocab_size": 50,
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 20,
        },
        37,
    ),
    "one head, another epsilon": (
        {
            "d_model": 16,
            "d_kv": 5,
            "d_ff": 64,
            "num_layers": 4,
            "num_heads": 1,
            "vocab_size": 77,
            "layer_norm_epsilon": 1e-3,
        },
        9,
    ),
}


@pytest.mark.parametrize(("options", "tokens"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize(("seed", "scale"), DRAWS)
def test_parity(options, tokens, seed, scale):
    config = ReferenceConfig(feed_forward_proj="gated-gelu", **options)
    reference = Reference(config).eval()
    draw_reference_parameters(reference, seed, scale)
    layer = T5EncoderModel(T5Config.from_dict(config.to_dict()))
    # The embedding has two names in the reference.
    del reference.encoder.embed_tokens
    copy_weights(layer, reference)
    reference.encoder.embed_tokens = reference.shared
    input_ids = np.random.default_rng(seed).integers(0, options["vocab_size"], (3, tokens))

    with torch.no_grad():
        wanted = reference(torch.tensor(input_ids)).last_hidden_state
    with paddle.no_grad():
        given = layer(paddle.to_tensor(input_ids))

    assert relative_error(given, wanted) <= LARGEST_ERROR


@pytest.mark.parametrize(("buckets", "farthest"), [(32, 128), (8, 20), (64, 1000), (4, 3)])
def test_buckets_of_all_distances(buckets, farthest):
    distances = torch.arange(-2 * farthest, 2 * farthest + 1)
    wanted = T5Attention._relative_position_bucket(distances, True, buckets, farthest).numpy()
    given = list_buckets(buckets, farthest)
    nearby = distances.clip(-farthest, farthest) + farthest
    np.testing.assert_array_equal(given[nearby.numpy()], wanted)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("feed_forward_proj", "relu"),
        ("feed_forward_proj", "gated-silu"),
        ("model_type", "umt5"),
        ("is_decoder", True),
        ("relative_attention_num_buckets", 7),
        ("brand_new_key", 1),
    ],
)
def test_what_is_not_implemented_is_named(key, value):
    with pytest.raises(UnsupportedModelError, match=key):
        T5Config.from_dict({"feed_forward_proj": "gated-gelu", key: value})


def test_version_1_0_is_refused():
    with pytest.raises(UnsupportedModelError, match="feed_forward_proj = 'relu'"):
        T5Config.from_dict({"d_model": 512})
