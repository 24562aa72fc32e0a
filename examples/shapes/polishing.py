"""Stage 4: the decoder learns to draw the latents that the UNet makes."""

from pathlib import Path

import numpy as np
import paddle

from fastdeploy_diffusion.models.autoencoder import AutoencoderKL
from fastdeploy_diffusion.models.clip import CLIPTextModel
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.tokenizers import CLIPTokenizer
from shapes.denoising import denoise, encode_captions
from shapes.pictures import save_grid, training_scenes
from shapes.training_run import TrainingRun
from shapes.world import Scene, draw

_STEPS = 20
_LAST_STEPS = 6


def polish_decoder(
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    scaling_factor: float,
    path: Path,
    *,
    steps: int,
    batch: int,
) -> None:
    """Train the decoder on alone, ``batch`` pictures on every worker.

    The latents of a picture are covered with noise and denoised by the UNet in the last 0 to 6 of
    20 steps: the place of the shape survives that, and the decoder learns to draw straight sides
    and whole corners from latents with the UNet's small errors. Whole pictures, because the
    GroupNorms of a crop see other averages.
    """
    scenes = training_scenes()
    odds = _weigh(scenes)
    contexts = encode_captions(encoder, tokenizer, [*(scene.caption("en") for scene in scenes), ""])
    trained = {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}
    run = TrainingRun(path, trained, steps=steps, learning_rate=2.5e-4, average_decay=0.995)
    unet.eval()
    for random in run.run(save_every=100):
        chosen = random.choice(len(scenes), size=batch, p=odds)
        pictures = np.stack([draw(scenes[i], random) for i in chosen])
        images = paddle.to_tensor(pictures.transpose(0, 3, 1, 2))
        with paddle.no_grad():
            mean, log_variance = vae.encode(images)
        shape = tuple(mean.shape)
        latents = mean.numpy() + np.exp(0.5 * log_variance.numpy()) * random.standard_normal(
            shape, np.float32
        )
        latents = denoise(
            unet,
            np.concatenate([contexts[[-1] * batch], contexts[chosen]]),
            scaling_factor * latents,
            noise=random.standard_normal(shape, np.float32),
            steps=_STEPS,
            # The same on every worker, so that none waits for another.
            last=run.step % (_LAST_STEPS + 1),
        )
        error = vae.decode(paddle.to_tensor(latents / scaling_factor)) - images
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
