"""Stage 1: the autoencoder learns to turn the world's pictures into latents and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from PIL import Image

from fastdeploy_diffusion.families.networks.autoencoder import AutoencoderKLConfig
from fastdeploy_diffusion.models.autoencoder import AutoencoderKL
from shapes.training_run import TrainingRun
from shapes.world import RESOLUTION, Scene, all_scenes, draw

VAE_CONFIG = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [16, 32, 64, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "out_channels": 3,
    "sample_size": RESOLUTION,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}


def create_vae(config: Mapping[str, Any] = VAE_CONFIG) -> AutoencoderKL:
    """An untrained autoencoder."""
    return AutoencoderKL(AutoencoderKLConfig.from_dict(config))


def training_scenes() -> list[Scene]:
    """All scenes but the held-out ones."""
    return [scene for scene in all_scenes() if not scene.is_held_out]


def draw_batch(random: np.random.Generator, count: int, side: int) -> np.ndarray:
    """Draw ``count`` random crops, (count, 3, side, side) float32 in [-1, 1]."""
    scenes = training_scenes()
    batch = np.empty((count, 3, side, side), np.float32)
    for index in range(count):
        picture = draw(scenes[random.integers(len(scenes))], random)
        top, left = random.integers(RESOLUTION - side + 1, size=2)
        batch[index] = picture[top : top + side, left : left + side].transpose(2, 0, 1)
    return batch


def train_vae(
    vae: AutoencoderKL,
    path: Path,
    *,
    steps: int,
    batch: int,
    side: int,
    divergence_weight: float = 1e-3,
) -> None:
    """Train on crops of ``side`` pixels, ``batch`` on every worker.

    The greater ``divergence_weight``, the more noise the latents bear.
    """
    run = TrainingRun(path, {"vae": vae}, steps=steps, learning_rate=1e-3, average_decay=0.995)
    for random in run.run(save_every=100):
        images = paddle.to_tensor(draw_batch(random, batch, side))
        mean, log_variance = vae.encode(images)
        noise = paddle.to_tensor(random.standard_normal(mean.shape, np.float32))
        decoded = vae.decode(mean + (0.5 * log_variance).exp() * noise)
        error = decoded - images
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        run.learn(error.abs().mean() + error.square().mean() + divergence_weight * divergence)
        if run.is_main and (run.step + 1) % 100 == 0:
            grid = np.concatenate([images.numpy(), decoded.numpy()])
            save_grid(grid, path.with_suffix(".png"), columns=batch)
    run.use_average()


def save_grid(images: np.ndarray, path: Path, columns: int = 8) -> None:
    """Write images (N, 3, H, W) in [-1, 1] as one PNG, ``columns`` a row."""
    rows = [
        np.concatenate(list(images[start : start + columns]), axis=2)
        for start in range(0, len(images) - columns + 1, columns)
    ]
    grid = np.concatenate(rows, axis=1).transpose(1, 2, 0)
    pixels = np.clip((grid + 1) * 127.5, 0, 255).round().astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
