"""The transformer learns to draw latents from captions, by rectified flow."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from paddle import Tensor
from paddle.nn import functional as F

from fastdeploy_diffusion.models.autoencoder import AutoencoderKL
from fastdeploy_diffusion.models.flux import FluxTransformer2DModel
from shapes.fast_blocks import speed_up_blocks
from shapes.flow_sampling import GUIDANCE_SCALE, sample
from shapes.flux_latents import LatentTokens
from shapes.flux_texts import TextEncoders, Texts
from shapes.pictures import save_grid, training_scenes
from shapes.pool import SPELLINGS, LatentPool, list_unseen_captions, spell
from shapes.training_run import TrainingRun
from shapes.transformer import create_transformer, predict_velocity

_CAPTION_DROPOUT = 0.1
_LARGEST_GUIDANCE = 5.0


@dataclass(frozen=True)
class FlowBatch:
    """Covered tokens (B, 16, 64), their shares of noise (B,), captions, and true velocities."""

    tokens: np.ndarray
    sigmas: np.ndarray
    texts: Texts
    velocity: np.ndarray


class FlowData:
    """Tokens of the pool's pictures with captions in both languages, one in ten left out.

    Args:
        pool: This worker's pictures.
        encoders: Trained.
        codec: How latents become tokens.
    """

    def __init__(self, pool: LatentPool, encoders: TextEncoders, codec: LatentTokens) -> None:
        self.empty = encoders.encode([""])
        captions = [text for scene in training_scenes() for text in spell(scene)]
        self._texts = encoders.encode([*captions, ""])
        self._tokens = codec.pack(pool.mean)
        self._scenes, self._odds = pool.scenes, pool.weigh()

    def draw(self, random: np.random.Generator, count: int) -> FlowBatch:
        """Draw ``count`` pictures, captions and noises."""
        chosen = random.choice(len(self._scenes), size=count, p=self._odds)
        tokens = self._tokens[chosen]
        noise = random.standard_normal(tokens.shape, np.float32)
        # Logit-normal (Esser et al., 2024), wider and nearer to noise: what is drawn, where and how
        # large, is decided in the first steps.
        sigmas = 1 / (1 + np.exp(-random.normal(0.5, 1.4, count))).astype(np.float32)
        rows = SPELLINGS * self._scenes[chosen] + random.integers(SPELLINGS, size=count)
        rows[random.random(count) < _CAPTION_DROPOUT] = len(self._texts.pooled) - 1
        share = sigmas[:, None, None]
        return FlowBatch(
            (1 - share) * tokens + share * noise, sigmas, self._texts.take(rows), noise - tokens
        )


class FlowSamples:
    """Draws eight held-out scenes beside the checkpoint, with the averaged weights."""

    def __init__(self, vae: AutoencoderKL, encoders: TextEncoders, codec: LatentTokens) -> None:
        self._vae, self._codec = vae, codec
        self._texts = encoders.encode(list_unseen_captions())

    def save(
        self, run: TrainingRun, transformer: FluxTransformer2DModel, guidance_scale: float
    ) -> None:
        """Draw them at every 500th step."""
        if run.is_main and (run.step + 1) % 500 == 0:
            with run.averaged():
                images = sample(transformer, self._vae, self._texts, self._codec, guidance_scale)
            save_grid(images, run.path.with_name(f"{run.path.stem}-{run.step + 1:05d}.png"))


def train_flow(
    transformer: FluxTransformer2DModel,
    data: FlowData,
    samples: FlowSamples,
    path: Path,
    *,
    steps: int,
    batch: int,
) -> None:
    """Train on velocities (Liu et al., 2023), ``batch`` pictures on every worker.

    The guidance scale is 1 throughout: captions as they are.
    """
    speed_up_blocks(transformer)
    run = TrainingRun(path, {"transformer": transformer}, steps=steps, learning_rate=1e-3)
    for random in run.run(save_every=250):
        drawn = data.draw(random, batch)
        ones = np.ones(batch, np.float32)
        predicted = predict_velocity(transformer, drawn.tokens, drawn.texts, drawn.sigmas, ones)
        run.learn(F.mse_loss(predicted, paddle.to_tensor(drawn.velocity)))
        samples.save(run, transformer, 1.0)
    run.use_average()


def distil_guidance(
    transformer: FluxTransformer2DModel,
    data: FlowData,
    samples: FlowSamples,
    path: Path,
    *,
    steps: int,
    batch: int,
) -> None:
    """Train towards the guided velocity of what it was (Meng et al., 2023), at scales 1 to 5.

    The teacher, the transformer as it comes in, sees each batch with captions and without. Its two
    velocities are combined by a guidance scale (Ho & Salimans, 2022), which the student is told.
    """
    teacher = create_transformer()
    teacher.set_state_dict(transformer.state_dict())
    speed_up_blocks(transformer)
    speed_up_blocks(teacher)
    run = TrainingRun(path, {"transformer": transformer}, steps=steps, learning_rate=3e-4)
    for random in run.run(save_every=250):
        drawn = data.draw(random, batch)
        scales = random.uniform(1, _LARGEST_GUIDANCE, batch).astype(np.float32)
        guided = _guide(teacher, drawn, data.empty, scales)
        predicted = predict_velocity(transformer, drawn.tokens, drawn.texts, drawn.sigmas, scales)
        run.learn(F.mse_loss(predicted, guided))
        samples.save(run, transformer, GUIDANCE_SCALE)
    run.use_average()


def _guide(
    teacher: FluxTransformer2DModel, drawn: FlowBatch, empty: Texts, scales: np.ndarray
) -> Tensor:
    ones = np.ones(len(scales), np.float32)
    with paddle.no_grad():
        told, untold = (
            predict_velocity(teacher, drawn.tokens, texts, drawn.sigmas, ones)
            for texts in (drawn.texts, empty.take([0] * len(scales)))
        )
    return untold + paddle.to_tensor(scales).reshape([-1, 1, 1]) * (told - untold)
