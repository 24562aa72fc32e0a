"""Names of the UNet and the VAE in single files (LDM and SGM code), as tables of patterns.

The numbering is that of ``openaimodel.py`` and ``model.py`` in ``ldm/modules/diffusionmodules``,
with two residual blocks a level as in every published SD 1.x, SD 2.x and SDXL model.
"""

from collections.abc import Mapping

from fastdeploy_diffusion.families.keys.rules import KeyRule, ignore, rename, rename_layers

_LEVELS = range(4)  # SDXL's UNet has three; the patterns of the fourth then match nothing

# LDM numbers the UNet's blocks in one row: a level is two residual blocks and a downsampler on the
# way down, and three residual blocks (the last with the upsampler) on the way up.
_UNET_BLOCKS = [
    *(
        (rf"input_blocks\.{1 + 3 * level + i}", f"down_blocks.{level}", i)
        for level in _LEVELS
        for i in range(2)
    ),
    *(
        (rf"output_blocks\.{3 * level + i}", f"up_blocks.{level}", i)
        for level in _LEVELS
        for i in range(3)
    ),
]
_RESNETS: Mapping[str, str] = {
    r"middle_block\.0": "mid_block.resnets.0",
    r"middle_block\.2": "mid_block.resnets.1",
    **{rf"{old}\.0": f"{new}.resnets.{i}" for old, new, i in _UNET_BLOCKS},
}
_RESNET_LAYERS: Mapping[str, str] = {
    r"in_layers\.0": "norm1",
    r"in_layers\.2": "conv1",
    r"emb_layers\.1": "time_emb_proj",
    r"out_layers\.0": "norm2",
    r"out_layers\.3": "conv2",
    r"skip_connection": "conv_shortcut",
}
_ATTENTIONS: Mapping[str, str] = {
    r"middle_block\.1": "mid_block.attentions.0",
    **{rf"{old}\.1": f"{new}.attentions.{i}" for old, new, i in _UNET_BLOCKS},
}
_UNET_LAYERS: Mapping[str, str] = {
    r"time_embed\.0": "time_embedding.linear_1",
    r"time_embed\.2": "time_embedding.linear_2",
    r"label_emb\.0\.0": "add_embedding.linear_1",
    r"label_emb\.0\.2": "add_embedding.linear_2",
    r"input_blocks\.0\.0": "conv_in",
    r"out\.0": "conv_norm_out",
    r"out\.2": "conv_out",
    **{
        rf"input_blocks\.{3 + 3 * level}\.0\.op": f"down_blocks.{level}.downsamplers.0.conv"
        for level in _LEVELS
    },
    # The upsampler follows the attention where there is one, so its own number is 1 or 2.
    **{
        rf"output_blocks\.{2 + 3 * level}\.[12]\.conv": f"up_blocks.{level}.upsamplers.0.conv"
        for level in _LEVELS
    },
    **{
        rf"{block}\.{layer}": f"{new_block}.{new_layer}"
        for block, new_block in _RESNETS.items()
        for layer, new_layer in _RESNET_LAYERS.items()
    },
}

LDM_UNET_RULES: tuple[KeyRule, ...] = (
    *rename_layers(_UNET_LAYERS),
    *(
        rename(rf"{old}\.((?:norm|proj_in|proj_out|transformer_blocks)\..+)", rf"{new}.\1")
        for old, new in _ATTENTIONS.items()
    ),
)

# ``cldm.py`` numbers the zero convolutions as the results that they take, and the layers of the
# picture's embedding with the SiLUs between them; the first and the last have names of their own.
_EMBEDDING_CONVOLUTIONS = 8
LDM_CONTROLNET_RULES: tuple[KeyRule, ...] = (
    *LDM_UNET_RULES,
    *rename_layers(
        {
            r"zero_convs\.(\d+)\.0": r"controlnet_down_blocks.\1",
            r"middle_block_out\.0": "controlnet_mid_block",
            r"input_hint_block\.0": "controlnet_cond_embedding.conv_in",
            **{
                rf"input_hint_block\.{2 * index}": f"controlnet_cond_embedding.blocks.{index - 1}"
                for index in range(1, _EMBEDDING_CONVOLUTIONS - 1)
            },
            rf"input_hint_block\.{2 * _EMBEDDING_CONVOLUTIONS - 2}": (
                "controlnet_cond_embedding.conv_out"
            ),
        }
    ),
)

_VAE_LAYERS: Mapping[str, str] = {
    r"(encoder|decoder)\.norm_out": r"\1.conv_norm_out",
    r"(encoder|decoder)\.mid\.block_1\.(norm1|conv1|norm2|conv2)": r"\1.mid_block.resnets.0.\2",
    r"(encoder|decoder)\.mid\.block_2\.(norm1|conv1|norm2|conv2)": r"\1.mid_block.resnets.1.\2",
    r"(encoder|decoder)\.mid\.attn_1\.norm": r"\1.mid_block.attentions.0.group_norm",
    r"encoder\.down\.(\d)\.downsample\.conv": r"encoder.down_blocks.\1.downsamplers.0.conv",
    r"encoder\.down\.(\d)\.block\.(\d)\.(norm1|conv1|norm2|conv2)": (
        r"encoder.down_blocks.\1.resnets.\2.\3"
    ),
    r"encoder\.down\.(\d)\.block\.(\d)\.nin_shortcut": (
        r"encoder.down_blocks.\1.resnets.\2.conv_shortcut"
    ),
}
# LDM counts the decoder's levels from the finest, diffusers from the coarsest.
_VAE_UP_BLOCKS: Mapping[str, str] = {
    rf"decoder\.up\.{3 - level}": f"decoder.up_blocks.{level}" for level in _LEVELS
}
_VAE_UP_LAYERS: Mapping[str, str] = {
    r"upsample\.conv": "upsamplers.0.conv",
    r"block\.(\d)\.(norm1|conv1|norm2|conv2)": r"resnets.\1.\2",
    r"block\.(\d)\.nin_shortcut": r"resnets.\1.conv_shortcut",
}
_VAE_ATTENTION: Mapping[str, str] = {
    rf"(encoder|decoder)\.mid\.attn_1\.{old}": rf"\1.mid_block.attentions.0.{new}"
    for old, new in {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}.items()
}

# `conv_in`, `conv_out`, `quant_conv` and `post_quant_conv` have the same names in both.
LDM_VAE_RULES: tuple[KeyRule, ...] = (
    *rename_layers(_VAE_LAYERS),
    *rename_layers(
        {
            rf"{block}\.{layer}": f"{new_block}.{new_layer}"
            for block, new_block in _VAE_UP_BLOCKS.items()
            for layer, new_layer in _VAE_UP_LAYERS.items()
        }
    ),
    *rename_layers(_VAE_ATTENTION, squeezed=True),
)

# Outside the components: the noise schedule's tables and the averaged copy of the UNet.
LDM_INERT_RULES: tuple[KeyRule, ...] = (
    ignore(r"model_ema\..+"),
    ignore(
        "betas|alphas_cumprod|alphas_cumprod_prev|sqrt_alphas_cumprod"
        "|sqrt_one_minus_alphas_cumprod|log_one_minus_alphas_cumprod|sqrt_recip_alphas_cumprod"
        "|sqrt_recipm1_alphas_cumprod|posterior_variance|posterior_log_variance_clipped"
        "|posterior_mean_coef1|posterior_mean_coef2|logvar"
    ),
    ignore(r"denoiser\.sigmas"),
)
