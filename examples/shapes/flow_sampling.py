"""Pictures and half-pictures from the transformer, along the scheduler that ships with it."""

from itertools import pairwise

import numpy as np
import paddle

from fastdeploy_diffusion.models.autoencoder import AutoencoderKL
from fastdeploy_diffusion.models.flux import FluxTransformer2DModel
from fastdeploy_diffusion.schedulers.create_flow import create_flow_scheduler
from shapes.flux_latents import CHANNELS, TOKENS, LatentTokens
from shapes.flux_texts import TextEncoders, Texts
from shapes.polishing import STEPS, Redraw
from shapes.transformer import predict_velocity
from shapes.world import Scene

FLOW_SCHEDULER_CONFIG = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "use_dynamic_shifting": False,
}
GUIDANCE_SCALE = 2.5


def follow_flow(
    transformer: FluxTransformer2DModel,
    texts: Texts,
    tokens: np.ndarray,
    *,
    noise: np.ndarray,
    last: int,
    guidance_scale: float,
) -> np.ndarray:
    """Cover tokens with noise and denoise them in the ``last`` of 20 steps.

    ``tokens`` and ``noise`` are (N, 16, 64) float32. With ``last=0`` the tokens come back as they
    are; with ``last=20`` nothing of them is left.
    """
    scheduler = create_flow_scheduler(FLOW_SCHEDULER_CONFIG)
    scheduler.set_timesteps(STEPS, sigmas=tuple(np.linspace(1.0, 1 / STEPS, STEPS)))
    sigmas = scheduler.sigmas[STEPS - last :]
    tokens = (1 - sigmas[0]) * tokens + sigmas[0] * noise
    transformer.eval()
    guidance = np.full(len(tokens), guidance_scale, np.float32)
    with paddle.no_grad():
        for sigma, following in pairwise(sigmas):
            shares = np.full(len(tokens), sigma, np.float32)
            velocity = predict_velocity(transformer, tokens, texts, shares, guidance).numpy()
            tokens = tokens + (following - sigma) * velocity
    transformer.train()
    return tokens


def sample(
    transformer: FluxTransformer2DModel,
    vae: AutoencoderKL,
    texts: Texts,
    codec: LatentTokens,
    guidance_scale: float,
) -> np.ndarray:
    """Draw N captions, (N, 3, 128, 128) float32."""
    shape = len(texts.pooled), TOKENS, CHANNELS
    noise = np.random.default_rng(0).standard_normal(shape, np.float32)
    tokens = follow_flow(
        transformer,
        texts,
        np.zeros_like(noise),
        noise=noise,
        last=STEPS,
        guidance_scale=guidance_scale,
    )
    vae.eval()
    with paddle.no_grad():
        return vae.decode(paddle.to_tensor(codec.unpack(tokens))).numpy()


def create_flow_redraw(
    transformer: FluxTransformer2DModel, encoders: TextEncoders, codec: LatentTokens
) -> Redraw:
    """What the transformer makes of latents covered with noise, for `polish_decoder`."""

    def redraw(
        scenes: list[Scene], latents: np.ndarray, noise: np.ndarray, last: int
    ) -> np.ndarray:
        texts = encoders.encode([scene.caption("en") for scene in scenes])
        tokens = follow_flow(
            transformer,
            texts,
            codec.pack(latents),
            noise=noise.reshape(len(noise), TOKENS, CHANNELS),
            last=last,
            guidance_scale=GUIDANCE_SCALE,
        )
        return codec.unpack(tokens)

    return redraw
