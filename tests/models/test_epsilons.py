"""Every norm adds the epsilon that the reference's norm of the same name adds.

Activations of some variance hide a wrong one: 1e-5 for 1e-6 changes their norm by 5e-6.
"""

import diffusers
import pytest
import torch
import transformers
from paddle import nn

from fastdeploy_diffusion.families.networks.autoencoder import AutoencoderKLConfig
from fastdeploy_diffusion.families.networks.clip import CLIPTextConfig
from fastdeploy_diffusion.families.networks.flux import FluxTransformer2DConfig
from fastdeploy_diffusion.families.networks.t5 import T5Config
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.models.autoencoder import AutoencoderKL
from fastdeploy_diffusion.models.clip import CLIPTextModel, CLIPTextModelWithProjection
from fastdeploy_diffusion.models.flux import FluxTransformer2DModel
from fastdeploy_diffusion.models.rms_norm import RMSNorm
from fastdeploy_diffusion.models.t5 import T5EncoderModel
from fastdeploy_diffusion.models.unet import UNet2DConditionModel

DOWN, CROSS_DOWN = "DownBlock2D", "CrossAttnDownBlock2D"
UP, CROSS_UP = "UpBlock2D", "CrossAttnUpBlock2D"
UNETS = {
    "sd1": {"attention_head_dim": 2},
    "sd2": {"attention_head_dim": [1, 2], "use_linear_projection": True},
    "sdxl": {
        "attention_head_dim": [1, 2],
        "use_linear_projection": True,
        "transformer_layers_per_block": [1, 2],
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 34,
    },
    "another": {"norm_eps": 3e-4},
}
TEXT = {
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 20,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 19,
}
T5 = {
    "d_model": 8,
    "d_kv": 4,
    "d_ff": 12,
    "num_layers": 2,
    "num_heads": 2,
    "vocab_size": 20,
    "feed_forward_proj": "gated-gelu",
}
FLUX = {
    "in_channels": 8,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 6,
    "num_attention_heads": 2,
    "joint_attention_dim": 8,
    "pooled_projection_dim": 4,
    "guidance_embeds": True,
    "axes_dims_rope": (2, 2, 2),
}


def make_unets(options):
    reference = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=(CROSS_DOWN, CROSS_DOWN),
        up_block_types=(CROSS_UP, CROSS_UP),
        cross_attention_dim=6,
        norm_num_groups=4,
        **options,
    )
    return UNet2DConditionModel(UNet2DConditionConfig.from_dict(dict(reference.config))), reference


def make_autoencoders():
    reference = diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    )
    return AutoencoderKL(AutoencoderKLConfig.from_dict(dict(reference.config))), reference


def make_clips(ours, theirs, **options):
    config = transformers.CLIPTextConfig(**TEXT, **options)
    return ours(CLIPTextConfig.from_dict(config.to_dict())), theirs(config)


def make_t5s(**options):
    config = transformers.T5Config(**T5, **options)
    return T5EncoderModel(T5Config.from_dict(config.to_dict())), transformers.T5EncoderModel(config)


def make_fluxes():
    reference = diffusers.FluxTransformer2DModel(**FLUX)
    config = FluxTransformer2DConfig.from_dict(dict(reference.config))
    return FluxTransformer2DModel(config), reference


PROJECTED = (CLIPTextModelWithProjection, transformers.CLIPTextModelWithProjection)
MODELS = {
    **{f"unet of {name}": lambda each=each: make_unets(each) for name, each in UNETS.items()},
    "autoencoder": make_autoencoders,
    "clip": lambda: make_clips(CLIPTextModel, transformers.CLIPTextModel),
    "open clip": lambda: make_clips(*PROJECTED, hidden_act="gelu", layer_norm_eps=3e-4),
    "t5": make_t5s,
    "t5 with another": lambda: make_t5s(layer_norm_epsilon=3e-4),
    "flux": make_fluxes,
}


def list_epsilons(layer):
    """Epsilons by name, of every norm of ours."""
    found = {}
    for name, part in layer.named_sublayers():
        if isinstance(part, RMSNorm):
            found[name] = part.epsilon
        elif isinstance(part, (nn.GroupNorm, nn.LayerNorm)):
            found[name] = part._epsilon
    return found


def list_reference_epsilons(module):
    """Epsilons by name, of every part that has one, or is a norm by its name."""
    found = {}
    for name, part in module.named_modules():
        epsilons = {
            getattr(part, attribute)
            for attribute in ("eps", "variance_epsilon")
            if hasattr(part, attribute)
        }
        is_norm = isinstance(part, (torch.nn.GroupNorm, torch.nn.LayerNorm))
        is_norm |= type(part).__name__.endswith(("RMSNorm", "T5LayerNorm"))
        if is_norm:
            (found[name.removeprefix("text_model.")],) = epsilons
    return found


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_epsilons_are_the_references(make):
    layer, reference = make()
    wanted = list_reference_epsilons(reference)
    assert len(wanted) > 2
    assert list_epsilons(layer) == wanted
