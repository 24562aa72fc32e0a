"""Small Flux transformers with random weights, and inputs for them."""

import numpy as np
import paddle
from drawn_parameters import draw_parameters

from fastdeploy_diffusion.families.networks.flux import FluxTransformer2DConfig
from fastdeploy_diffusion.models.flux import FluxTransformer2DModel

DEV_LIKE = {
    "in_channels": 12,
    "num_layers": 2,
    "num_single_layers": 3,
    "attention_head_dim": 16,
    "num_attention_heads": 3,
    "joint_attention_dim": 20,
    "pooled_projection_dim": 10,
    "guidance_embeds": True,
    "axes_dims_rope": [4, 6, 6],
}
SCHNELL_LIKE = {
    **DEV_LIKE,
    "num_layers": 1,
    "num_single_layers": 2,
    "attention_head_dim": 24,
    "num_attention_heads": 1,
    "guidance_embeds": False,
    "axes_dims_rope": [8, 12, 4],
}
SINGLE_BLOCKS = {**DEV_LIKE, "num_layers": 0, "num_single_layers": 2, "out_channels": 7}
CONFIGS = {"dev": DEV_LIKE, "schnell": SCHNELL_LIKE, "single blocks alone": SINGLE_BLOCKS}


def make(options=None):
    """Make a transformer with random weights."""
    layer = FluxTransformer2DModel(FluxTransformer2DConfig.from_dict(options or DEV_LIKE))
    draw_parameters(layer)
    layer.eval()
    return layer


def draw_feeds(options, batch, size=(3, 5), words=7, seed=0):
    """Draw all inputs, in the order of ``forward``, as paddle tensors."""
    random = np.random.default_rng(seed)
    rows, columns = np.indices(size)
    positions = np.stack([0 * rows, rows, columns], -1).reshape(-1, 3)
    feeds = [
        random.standard_normal((batch, len(positions), options["in_channels"])),
        random.standard_normal((batch, words, options["joint_attention_dim"])),
        random.standard_normal((batch, options["pooled_projection_dim"])),
        random.random(batch),
        positions,
        random.integers(0, 9, (words, 3)),
    ]
    if options["guidance_embeds"]:
        feeds.append(random.uniform(1, 8, batch))
    return [paddle.to_tensor(np.asarray(each, np.float32)) for each in feeds]
