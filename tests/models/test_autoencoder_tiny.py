import numpy as np
import paddle
import pytest
import torch
from diffusers import AutoencoderTiny as Reference
from drawn_parameters import draw_reference_parameters
from reference_weights import DRAWS, LARGEST_ERROR, copy_weights, relative_error

from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.networks.autoencoder_tiny import AutoencoderTinyConfig
from fastdeploy_diffusion.models.autoencoder_tiny import AutoencoderTiny
from fastdeploy_diffusion.models.components import TinyLatentDecoder

CONFIGS = {
    "published": {},
    "two levels": {
        "encoder_block_out_channels": (6, 6),
        "decoder_block_out_channels": (10, 10),
        "num_encoder_blocks": (0, 2),
        "num_decoder_blocks": (1, 0),
        "latent_channels": 16,
        "shift_factor": 0.2,
        "scaling_factor": 0.7,
    },
}


@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize(("seed", "scale"), DRAWS)
def test_parity(options, seed, scale):
    reference = Reference(**options).eval()
    draw_reference_parameters(reference, seed, scale)
    layer = AutoencoderTiny(AutoencoderTinyConfig.from_dict(dict(reference.config)))
    copy_weights(layer, reference)
    config, random = layer.config, np.random.default_rng(seed)
    images = random.standard_normal((2, 3, 3 * config.downscale, 5 * config.downscale), np.float32)
    # As large as the decoder's limit for them, and larger.
    latents = 3 * random.standard_normal((2, config.latent_channels, 3, 5), np.float32)
    scaled = (latents - (config.shift_factor or 0)) * config.scaling_factor
    with torch.no_grad():
        wanted_latents = reference.encode(torch.tensor(images)).latents
        wanted_images = reference.decode(torch.tensor(latents)).sample
    with paddle.no_grad():
        encoded = layer.encode(paddle.to_tensor(images))
        decoded = TinyLatentDecoder(layer)(paddle.to_tensor(scaled.astype(np.float32)))
    assert relative_error(encoded, wanted_latents) <= LARGEST_ERROR
    assert relative_error(decoded, wanted_images) <= LARGEST_ERROR


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("act_fn", "mish"),
        ("upsampling_scaling_factor", 4),
        ("decoder_block_out_channels", [64, 64, 32, 32]),
        ("encoder_block_out_channels", [64, 64]),
        ("num_decoder_blocks", [3, 1]),
        ("out_channels", 4),
        ("brand_new_key", 1),
    ],
)
def test_what_is_not_implemented_is_named(key, value):
    with pytest.raises(UnsupportedModelError, match=key):
        AutoencoderTinyConfig.from_dict({key: value})
