import numpy as np
import paddle
import pytest
import torch
from diffusers import AutoencoderKL as Reference
from drawn_parameters import draw_reference_parameters
from reference_weights import DRAWS, LARGEST_ERROR, copy_weights, relative_error

from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.networks.autoencoder import AutoencoderKLConfig
from fastdeploy_diffusion.models.autoencoder import AutoencoderKL

CONFIGS = {
    "two levels": {"block_out_channels": (8, 16), "layers_per_block": 2, "norm_num_groups": 4},
    "five channels": {
        "block_out_channels": (8, 16, 24),
        "norm_num_groups": 8,
        "latent_channels": 5,
    },
    "bare": {
        "block_out_channels": (6, 12, 12),
        "norm_num_groups": 3,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "mid_block_add_attention": False,
    },
    "flux": {
        "block_out_channels": (8, 16),
        "norm_num_groups": 8,
        "latent_channels": 16,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
    "one level": {"block_out_channels": (10,), "norm_num_groups": 5},
}


@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize(("seed", "scale"), DRAWS)
def test_parity(options, seed, scale):
    levels = len(options["block_out_channels"])
    reference = Reference(
        **options,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
    ).eval()
    draw_reference_parameters(reference, seed, scale)
    layer = AutoencoderKL(AutoencoderKLConfig.from_dict(dict(reference.config)))
    copy_weights(layer, reference)
    downscale = layer.config.downscale
    random = np.random.default_rng(seed)
    images = random.standard_normal((3, 3, 5 * downscale, 3 * downscale), np.float32)
    latents = random.standard_normal((3, layer.config.latent_channels, 5, 3), np.float32)

    with torch.no_grad():
        wanted = reference.encode(torch.tensor(images)).latent_dist
        wanted_images = reference.decode(torch.tensor(latents)).sample
    with paddle.no_grad():
        mean, log_variance = layer.encode(paddle.to_tensor(images))
        decoded = layer.decode(paddle.to_tensor(latents))

    assert relative_error(mean, wanted.mean) <= LARGEST_ERROR
    assert relative_error(log_variance, wanted.logvar) <= LARGEST_ERROR
    # Of little variance, much is rounded: 2.1e-5 was measured, and 2e-6 of full weights.
    largest = 5e-5 if scale < 1 else LARGEST_ERROR
    assert relative_error(decoded, wanted_images) <= largest


def test_log_variances_are_kept_within_bounds_as_in_the_reference():
    options = CONFIGS["one level"]
    reference = Reference(
        **options, down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",)
    ).eval()
    with torch.no_grad():  # the last four channels are log variances
        reference.quant_conv.bias[-4:] = torch.tensor([-100.0, -29.0, 19.0, 100.0])
    layer = AutoencoderKL(AutoencoderKLConfig.from_dict(dict(reference.config)))
    copy_weights(layer, reference)
    images = np.random.default_rng(0).standard_normal((1, 3, 4, 4), np.float32)
    with torch.no_grad():
        wanted = reference.encode(torch.tensor(images)).latent_dist.logvar
    with paddle.no_grad():
        _, given = layer.encode(paddle.to_tensor(images))
    assert relative_error(given, wanted) <= LARGEST_ERROR
    assert (given.min(), given.max()) == (-30, 20)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("act_fn", "gelu"),
        ("down_block_types", ["AttnDownEncoderBlock2D"]),
        ("up_block_types", ["UpDecoderBlock2D"] * 2),
        ("latents_mean", [0.0]),
        ("norm_num_groups", 7),
        ("out_channels", 4),
        ("brand_new_key", 1),
    ],
)
def test_what_is_not_implemented_is_named(key, value):
    with pytest.raises(UnsupportedModelError, match=key):
        AutoencoderKLConfig.from_dict({"block_out_channels": [64], key: value})
