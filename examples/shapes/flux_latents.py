"""Flux's autoencoder, and how its latents become the transformer's tokens."""

from dataclasses import dataclass

import numpy as np

from fastdeploy_diffusion.predictors.packing import pack, unpack
from shapes.pool import LatentPool
from shapes.training_run import average_over_workers
from shapes.world import RESOLUTION

FLUX_VAE_CONFIG = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    # Narrow where there are many pixels: half of the time of the other model's autoencoder.
    "block_out_channels": [16, 16, 32, 64, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 5,
    "in_channels": 3,
    "latent_channels": 16,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "out_channels": 3,
    "sample_size": RESOLUTION,
    "up_block_types": ["UpDecoderBlock2D"] * 5,
    "use_post_quant_conv": False,
    "use_quant_conv": False,
}
SIDE = RESOLUTION // 32
"""Tokens in a row and in a column: 16 pixels a latent pixel, two latent pixels a token."""
TOKENS, CHANNELS = SIDE * SIDE, 64


@dataclass(frozen=True)
class LatentTokens:
    """Brings latents to mean 0 and variance 1, and packs them two by two.

    Args:
        shift_factor: Their mean.
        scaling_factor: One over their standard deviation.
    """

    shift_factor: float
    scaling_factor: float

    def pack(self, latents: np.ndarray) -> np.ndarray:
        """Map latents (N, 16, 8, 8) to tokens (N, 16, 64)."""
        return pack((latents - self.shift_factor) * self.scaling_factor)

    def unpack(self, tokens: np.ndarray) -> np.ndarray:
        """Map tokens (N, 16, 64) to latents (N, 16, 8, 8)."""
        return unpack(tokens, SIDE, SIDE) / self.scaling_factor + self.shift_factor


def measure_latents(pool: LatentPool) -> LatentTokens:
    """Find shift and scale of the pools of all workers.

    Of the means alone, which is what the transformer learns: the autoencoder's noise carries no
    picture, and leaves room for the transformer's errors.
    """
    return LatentTokens(
        shift_factor=average_over_workers(float(pool.mean.mean())),
        scaling_factor=average_over_workers(1 / float(pool.mean.std())),
    )
