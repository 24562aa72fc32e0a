import numpy as np
import paddle
import pytest
import torch
from diffusers import FluxTransformer2DModel as Reference
from drawn_parameters import draw_reference_parameters
from reference_weights import DRAWS, LARGEST_ERROR, copy_weights, relative_error

from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.networks.flux import FluxTransformer2DConfig
from fastdeploy_diffusion.models.flux import FluxTransformer2DModel

# name → (config, (rows, columns) of the picture's tokens, text tokens, batch)
CASES = {
    "guided, as dev": (
        {
            "in_channels": 16,
            "num_layers": 2,
            "num_single_layers": 3,
            "attention_head_dim": 16,
            "num_attention_heads": 3,
            "joint_attention_dim": 24,
            "pooled_projection_dim": 10,
            "guidance_embeds": True,
            "axes_dims_rope": (4, 6, 6),
        },
        (5, 7),
        6,
        3,
    ),
    "unguided, as schnell": (
        {
            "in_channels": 64,
            "num_layers": 1,
            "num_single_layers": 1,
            "attention_head_dim": 32,
            "num_attention_heads": 1,
            "joint_attention_dim": 9,
            "pooled_projection_dim": 5,
            "axes_dims_rope": (8, 12, 12),
        },
        (64, 3),
        1,
        1,
    ),
    "other outputs, single blocks alone": (
        {
            "in_channels": 12,
            "out_channels": 7,
            "num_layers": 0,
            "num_single_layers": 2,
            "attention_head_dim": 10,
            "num_attention_heads": 4,
            "joint_attention_dim": 8,
            "pooled_projection_dim": 4,
            "axes_dims_rope": (2, 4, 4),
        },
        (1, 9),
        11,
        2,
    ),
}


@pytest.mark.parametrize(("options", "size", "words", "batch"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize(("seed", "scale"), DRAWS)
def test_parity(options, size, words, batch, seed, scale):
    reference = Reference(**options).eval()
    draw_reference_parameters(reference, seed, scale)
    layer = FluxTransformer2DModel(FluxTransformer2DConfig.from_dict(dict(reference.config)))
    copy_weights(layer, reference)
    random = np.random.default_rng(seed)
    rows, columns = size
    positions = np.stack(np.meshgrid([0], np.arange(rows), np.arange(columns), indexing="ij"), -1)
    inputs = {
        "hidden_states": random.standard_normal((batch, rows * columns, options["in_channels"])),
        "encoder_hidden_states": random.standard_normal(
            (batch, words, options["joint_attention_dim"])
        ),
        "pooled_projections": random.standard_normal((batch, options["pooled_projection_dim"])),
        "timestep": random.random(batch),
        "img_ids": positions.reshape(-1, 3),
        "txt_ids": random.integers(0, 9, (words, 3)),
    }
    if options.get("guidance_embeds"):
        inputs["guidance"] = random.uniform(1, 8, batch)
    inputs = {name: np.asarray(array, np.float32) for name, array in inputs.items()}

    with torch.no_grad():
        wanted = reference(**{name: torch.tensor(array) for name, array in inputs.items()}).sample
    with paddle.no_grad():
        given = layer(**{name: paddle.to_tensor(array) for name, array in inputs.items()})

    # 5e-5 was measured: a guidance of 8 is 8000 in its sinusoids, whose frequencies are rounded.
    largest = 2e-4 if "guidance" in inputs else LARGEST_ERROR
    assert relative_error(given, wanted) <= largest


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("patch_size", 2),
        ("axes_dims_rope", [43, 43, 42]),
        ("axes_dims_rope", [1, 63, 64]),
        ("attention_head_dim", 64),
        ("brand_new_key", 1),
    ],
)
def test_what_is_not_implemented_is_named(key, value):
    with pytest.raises(UnsupportedModelError, match=key):
        FluxTransformer2DConfig.from_dict({key: value})
