"""The transformer of the Flux in the box."""

import numpy as np
import paddle
from paddle import Tensor, nn

from fastdeploy_diffusion.families.networks.flux import FluxTransformer2DConfig
from fastdeploy_diffusion.models.flux import FluxTransformer2DModel
from fastdeploy_diffusion.models.flux_blocks import AdaptiveLayerNorm
from fastdeploy_diffusion.predictors.packing import list_positions
from shapes.flux_latents import CHANNELS, SIDE
from shapes.flux_texts import Texts

TRANSFORMER_CONFIG = {
    "_class_name": "FluxTransformer2DModel",
    "attention_head_dim": 32,
    "axes_dims_rope": [8, 12, 12],
    "guidance_embeds": True,
    "in_channels": CHANNELS,
    "joint_attention_dim": 128,
    "num_attention_heads": 6,
    "num_layers": 2,
    "num_single_layers": 4,
    "out_channels": None,
    "patch_size": 1,
    "pooled_projection_dim": 128,
}


def create_transformer() -> FluxTransformer2DModel:
    """An untrained transformer whose blocks and output begin as nothing (Peebles & Xie, 2023)."""
    transformer = FluxTransformer2DModel(FluxTransformer2DConfig.from_dict(TRANSFORMER_CONFIG))
    silent = [
        layer.linear for layer in transformer.sublayers() if isinstance(layer, AdaptiveLayerNorm)
    ]
    for linear in [*silent, transformer.proj_out]:
        nn.initializer.Constant(0.0)(linear.weight)
    return transformer


def predict_velocity(
    transformer: FluxTransformer2DModel,
    tokens: np.ndarray,
    texts: Texts,
    sigmas: np.ndarray,
    guidance: np.ndarray,
) -> Tensor:
    """What leads from clean tokens to noise.

    Args:
        transformer: Trained or not.
        tokens: Noisy, (B, 16, 64) float32.
        texts: B captions.
        sigmas: Share of noise, (B,) float32.
        guidance: Guidance scales, (B,) float32.

    Returns:
        (B, 16, 64) float32.
    """
    arrays = tokens, texts.features, texts.pooled, sigmas
    positions = paddle.to_tensor(list_positions(SIDE, SIDE))
    length = texts.features.shape[1]
    return transformer(
        *(paddle.to_tensor(each) for each in arrays),
        positions,
        paddle.zeros([length, 3]),
        paddle.to_tensor(guidance),
    )
