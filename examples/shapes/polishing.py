"""The last stage: the decoder learns to draw the latents that the model makes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import paddle

from fastdeploy_diffusion.models.autoencoder import AutoencoderKL
from shapes.pictures import save_grid, training_scenes
from shapes.training_run import TrainingRun
from shapes.world import Scene, draw

STEPS = 20
_LAST_STEPS = 6

Redraw = Callable[[list[Scene], np.ndarray, np.ndarray, int], np.ndarray]
"""Covers the latents of scenes with the noise and denoises them in so many last steps of 20."""


def polish_decoder(
    vae: AutoencoderKL, redraw: Redraw, path: Path, *, steps: int, batch: int
) -> None:
    """Train the decoder on alone, ``batch`` pictures on every worker.

    The latents of a picture are covered with noise and denoised by the model in the last 0 to 6 of
    20 steps: the place of the shape survives that, and the decoder learns to draw straight sides
    and whole corners from latents with the model's small errors. Whole pictures, because the
    GroupNorms of a crop see other averages.

    Args:
        vae: The trained autoencoder.
        redraw: What the model makes of the latents, both (N, C, H, W) float32 and unscaled.
        path: Checkpoint.
        steps: Length of the run.
        batch: Pictures on every worker.
    """
    scenes = training_scenes()
    odds = _weigh(scenes)
    trained = {"decoder": vae.decoder}
    if vae.post_quant_conv is not None:
        trained["post_quant_conv"] = vae.post_quant_conv
    run = TrainingRun(path, trained, steps=steps, learning_rate=2.5e-4, average_decay=0.995)
    for random in run.run(save_every=100):
        chosen = [scenes[index] for index in random.choice(len(scenes), size=batch, p=odds)]
        pictures = np.stack([draw(scene, random) for scene in chosen])
        images = paddle.to_tensor(pictures.transpose(0, 3, 1, 2))
        with paddle.no_grad():
            mean, log_variance = vae.encode(images)
        shape = tuple(mean.shape)
        latents = mean.numpy() + np.exp(0.5 * log_variance.numpy()) * random.standard_normal(
            shape, np.float32
        )
        noise = random.standard_normal(shape, np.float32)
        # As many steps on every worker, so that none waits for another.
        latents = redraw(chosen, latents, noise, run.step % (_LAST_STEPS + 1))
        error = vae.decode(paddle.to_tensor(latents)) - images
        run.learn(error.abs().mean() + error.square().mean())
        if run.is_main and (run.step + 1) % 100 == 0:
            grid = np.concatenate([images.numpy(), (error + images).numpy()])
            save_grid(grid, path.with_suffix(".png"), columns=batch)
    run.use_average()


def _weigh(scenes: list[Scene]) -> np.ndarray:
    """How often each scene is drawn: small shapes, and stars, have the hardest outlines."""
    hardness = [
        (2.0 if scene.size == "small" else 1.0) * (3.0 if scene.shape == "star" else 1.0)
        for scene in scenes
    ]
    return np.array(hardness) / sum(hardness)
