"""Every component of SD 1.x, 2.x, XL and Flux, small, with random weights, as engines get them."""

from collections.abc import Callable, Mapping

from engine_programs import Case, float_spec

from fastdeploy_diffusion.engines.accuracy import integers
from fastdeploy_diffusion.families.networks.autoencoder import AutoencoderKLConfig
from fastdeploy_diffusion.families.networks.clip import CLIPTextConfig
from fastdeploy_diffusion.families.networks.flux import FluxTransformer2DConfig
from fastdeploy_diffusion.families.networks.t5 import T5Config
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.models.autoencoder import AutoencoderKL
from fastdeploy_diffusion.models.clip import CLIPTextModel, CLIPTextModelWithProjection
from fastdeploy_diffusion.models.components import (
    LatentDecoder,
    LatentEncoder,
    TextConditioner,
)
from fastdeploy_diffusion.models.flux import FluxTransformer2DModel
from fastdeploy_diffusion.models.t5 import T5EncoderModel
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.runtime.program import TensorSpec

DOWN, CROSS_DOWN = "DownBlock2D", "CrossAttnDownBlock2D"
UP, CROSS_UP = "UpBlock2D", "CrossAttnUpBlock2D"
# Height, width and tokens are odd, and differ, so that nothing fits by luck.
HEIGHT, WIDTH, TOKENS = 9, 13, 7

SD1 = {
    "block_out_channels": [8, 16],
    "layers_per_block": 2,
    "down_block_types": [CROSS_DOWN, DOWN],
    "up_block_types": [UP, CROSS_UP],
    "cross_attention_dim": 24,
    "attention_head_dim": 2,
}
SD2 = {
    "block_out_channels": [12, 24, 36],
    "layers_per_block": 1,
    "down_block_types": [DOWN, CROSS_DOWN, CROSS_DOWN],
    "up_block_types": [CROSS_UP, CROSS_UP, UP],
    "cross_attention_dim": 20,
    "attention_head_dim": [1, 3, 9],
    "use_linear_projection": True,
}
SDXL = {
    **SD2,
    "attention_head_dim": [2, 4, 6],
    # By level; the first has no attention.
    "transformer_layers_per_block": [3, 1, 2],
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 16,
    "projection_class_embeddings_input_dim": 6 * 16 + 10,
}
TEXT = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "max_position_embeddings": TOKENS,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "vocab_size": 99,
    "eos_token_id": 98,
    "projection_dim": 12,
}
VAE = {
    "block_out_channels": [8, 16, 24],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "latent_channels": 5,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "scaling_factor": 0.5,
}
FLUX = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 3,
    "joint_attention_dim": 24,
    "pooled_projection_dim": 10,
    "axes_dims_rope": [4, 6, 6],
    "guidance_embeds": True,
}
T5 = {
    "d_model": 24,
    "d_kv": 8,
    "d_ff": 40,
    "num_layers": 2,
    "num_heads": 3,
    "vocab_size": 99,
    "feed_forward_proj": "gated-gelu",
    # So that tokens lie beyond it.
    "relative_attention_max_distance": 12,
}


def _unet(options: Mapping[str, object], **extra: TensorSpec) -> Case:
    config = UNet2DConditionConfig.from_dict(
        {"in_channels": 4, "out_channels": 4, "sample_size": 8, "norm_num_groups": 4, **options}
    )
    return Case(
        lambda: UNet2DConditionModel(config),
        (
            float_spec("sample", None, 4, HEIGHT, WIDTH),
            float_spec("timestep", None),
            float_spec("encoder_hidden_states", None, TOKENS, config.context_dims[0]),
            *extra.values(),
        ),
        (float_spec("prediction", None, 4, HEIGHT, WIDTH),),
        {"timestep": lambda random, shape: random.integers(0, 1000, shape)},
    )


def _text_encoder(encoder: Callable[..., CLIPTextModel], act: str, projection: int) -> Case:
    config = CLIPTextConfig.from_dict({**TEXT, "hidden_act": act})
    return Case(
        lambda: TextConditioner(encoder(config), normalize=True),
        (TensorSpec("input_ids", (None, TOKENS), "int64"),),
        (
            float_spec("hidden_states", config.num_hidden_layers + 1, None, TOKENS, 24),
            float_spec("pooled", None, projection),
        ),
        {"input_ids": integers(0, config.vocab_size)},
    )


def _vae_decoder(**options: object) -> Case:
    config = AutoencoderKLConfig.from_dict({**VAE, **options})
    scale = config.downscale
    return Case(
        lambda: LatentDecoder(AutoencoderKL(config)),
        (float_spec("latents", None, 5, HEIGHT, WIDTH),),
        (float_spec("images", None, 3, scale * HEIGHT, scale * WIDTH),),
    )


def _vae_encoder() -> Case:
    config = AutoencoderKLConfig.from_dict(VAE)
    scale = config.downscale
    return Case(
        lambda: LatentEncoder(AutoencoderKL(config)),
        (float_spec("images", None, 3, scale * HEIGHT, scale * WIDTH),),
        (float_spec("moments", None, 10, HEIGHT, WIDTH),),
    )


def _flux_transformer() -> Case:
    config = FluxTransformer2DConfig.from_dict(FLUX)
    return Case(
        lambda: FluxTransformer2DModel(config),
        (
            float_spec("hidden_states", None, HEIGHT * WIDTH, config.in_channels),
            float_spec("encoder_hidden_states", None, TOKENS, config.joint_attention_dim),
            float_spec("pooled_projections", None, config.pooled_projection_dim),
            float_spec("timestep", None),
            float_spec("img_ids", HEIGHT * WIDTH, 3),
            float_spec("txt_ids", TOKENS, 3),
            float_spec("guidance", None),
        ),
        (float_spec("velocity", None, HEIGHT * WIDTH, config.outputs),),
        {
            "timestep": lambda random, shape: random.random(shape),
            "img_ids": integers(0, 64),
            "txt_ids": integers(0, 64),
            "guidance": lambda random, shape: random.uniform(1, 8, shape),
        },
    )


def _t5_encoder() -> Case:
    config = T5Config.from_dict(T5)
    return Case(
        lambda: T5EncoderModel(config),
        (TensorSpec("input_ids", (None, 5 * TOKENS), "int64"),),
        (float_spec("features", None, 5 * TOKENS, config.d_model),),
        {"input_ids": integers(0, config.vocab_size)},
    )


COMPONENTS: Mapping[str, Case] = {
    "sd1 unet": _unet(SD1),
    "sd2 unet": _unet(SD2),
    "sdxl unet": _unet(
        SDXL,
        text_embeds=float_spec("text_embeds", None, 10),
        time_ids=float_spec("time_ids", None, 6),
    ),
    "sd1 text encoder": _text_encoder(CLIPTextModel, "quick_gelu", 24),
    "sdxl text encoder": _text_encoder(CLIPTextModelWithProjection, "gelu", 12),
    "vae decoder": _vae_decoder(),
    "bare vae decoder": _vae_decoder(
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
        shift_factor=0.1159,
    ),
    "vae encoder": _vae_encoder(),
    "flux transformer": _flux_transformer(),
    "t5 encoder": _t5_encoder(),
}
