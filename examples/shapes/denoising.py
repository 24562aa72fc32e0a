"""Stage 3: the UNet learns to draw latents from captions."""

from pathlib import Path

import numpy as np
import paddle
from paddle.nn import functional as F

from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.models.autoencoder import AutoencoderKL
from fastdeploy_diffusion.models.clip import CLIPTextModel
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.schedulers import create_scheduler
from fastdeploy_diffusion.tokenizers import CLIPTokenizer
from shapes.pictures import save_grid, training_scenes
from shapes.polishing import STEPS, Redraw
from shapes.pool import SPELLINGS, LatentPool, list_unseen_captions, spell
from shapes.training_run import TrainingRun
from shapes.world import RESOLUTION, Scene

UNET_CONFIG = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 4,
    "block_out_channels": [48, 96, 144],
    "cross_attention_dim": 128,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "in_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 16,
    "out_channels": 4,
    "sample_size": RESOLUTION // 8,
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}
SCHEDULER_CONFIG = {
    "_class_name": "DDIMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "trailing",
}
_CAPTION_DROPOUT = 0.1


def create_unet() -> UNet2DConditionModel:
    """An untrained UNet."""
    return UNet2DConditionModel(UNet2DConditionConfig.from_dict(UNET_CONFIG))


def encode_captions(
    encoder: CLIPTextModel, tokenizer: CLIPTokenizer, captions: list[str]
) -> np.ndarray:
    """The text conditioning of captions, (N, T, D) float32."""
    encoder.eval()
    blocks = []
    for start in range(0, len(captions), 256):
        tokens = tokenizer.encode(captions[start : start + 256])
        with paddle.no_grad():
            blocks.append(encoder(paddle.to_tensor(tokens.input_ids)).last_hidden_state.numpy())
    return np.concatenate(blocks)


def train_unet(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    pool: LatentPool,
    scaling_factor: float,
    path: Path,
    *,
    steps: int,
    batch: int,
) -> None:
    """Train on velocity prediction (Salimans & Ho, 2022), ``batch`` latents on every worker."""
    captions = [text for scene in training_scenes() for text in spell(scene)]
    contexts = encode_captions(encoder, tokenizer, [*captions, ""])
    alphas = schedule_alphas()
    odds = pool.weigh()
    run = TrainingRun(path, {"unet": unet}, steps=steps, learning_rate=1e-3)
    for random in run.run(save_every=250):
        chosen = random.choice(len(pool.scenes), size=batch, p=odds)
        shape = pool.mean[chosen].shape
        latents = pool.mean[chosen] + pool.deviation[chosen] * random.standard_normal(
            shape, np.float32
        )
        latents = scaling_factor * latents
        noise = random.standard_normal(shape, np.float32)
        timesteps = random.integers(1000, size=batch)
        signal = np.sqrt(alphas[timesteps])[:, None, None, None]
        blur = np.sqrt(1 - alphas[timesteps])[:, None, None, None]
        rows = SPELLINGS * pool.scenes[chosen] + random.integers(SPELLINGS, size=batch)
        rows[random.random(batch) < _CAPTION_DROPOUT] = len(contexts) - 1
        predicted = unet(
            paddle.to_tensor(signal * latents + blur * noise),
            paddle.to_tensor(timesteps.astype(np.float32)),
            paddle.to_tensor(contexts[rows]),
        )
        velocity = paddle.to_tensor(signal * noise - blur * latents)
        run.learn(F.mse_loss(predicted, velocity))
        if run.is_main and (run.step + 1) % 500 == 0:
            _show_samples(run, unet, vae, encoder, tokenizer, scaling_factor)
    run.use_average()


def schedule_alphas() -> np.ndarray:
    """The share of signal (alpha bar) at each of the 1000 timesteps."""
    start, end = SCHEDULER_CONFIG["beta_start"], SCHEDULER_CONFIG["beta_end"]
    betas = np.linspace(start**0.5, end**0.5, 1000, dtype=np.float32) ** 2
    return np.cumprod(1 - betas)


def _refuse_noise() -> np.ndarray:
    raise RuntimeError("DDIM with eta = 0 draws no noise")


def _show_samples(
    run: TrainingRun,
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    scaling_factor: float,
) -> None:
    """Draw eight held-out scenes, four in each language, with the averaged weights."""
    with run.averaged():
        images = sample(unet, vae, encoder, tokenizer, list_unseen_captions(), scaling_factor)
    save_grid(images, run.path.with_name(f"samples-{run.step + 1:05d}.png"))
    unet.train()


def create_redraw(
    unet: UNet2DConditionModel,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    scaling_factor: float,
) -> Redraw:
    """What the UNet makes of latents covered with noise, for `polish_decoder`."""
    empty = encode_captions(encoder, tokenizer, [""])

    def redraw(
        scenes: list[Scene], latents: np.ndarray, noise: np.ndarray, last: int
    ) -> np.ndarray:
        contexts = encode_captions(encoder, tokenizer, [scene.caption("en") for scene in scenes])
        denoised = denoise(
            unet,
            np.concatenate([empty.repeat(len(scenes), axis=0), contexts]),
            scaling_factor * latents,
            noise=noise,
            steps=STEPS,
            last=last,
        )
        return denoised / scaling_factor

    return redraw


def sample(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    captions: list[str],
    scaling_factor: float,
    *,
    steps: int = 20,
    guidance_scale: float = 3.0,
) -> np.ndarray:
    """Draw captions, (N, 3, 128, 128) float32, with the library's own scheduler."""
    count = len(captions)
    contexts = encode_captions(encoder, tokenizer, [""] * count + captions)
    noise = np.random.default_rng(0).standard_normal((count, 4, 16, 16), np.float32)
    vae.eval()
    latents = denoise(
        unet,
        contexts,
        np.zeros_like(noise),
        noise=noise,
        steps=steps,
        last=steps,
        guidance_scale=guidance_scale,
    )
    with paddle.no_grad():
        return vae.decode(paddle.to_tensor(latents / scaling_factor)).numpy()


def denoise(
    unet: UNet2DConditionModel,
    contexts: np.ndarray,
    latents: np.ndarray,
    *,
    noise: np.ndarray,
    steps: int,
    last: int,
    guidance_scale: float = 3.0,
) -> np.ndarray:
    """Cover latents with noise and denoise them in the ``last`` of ``steps`` steps.

    ``latents`` and ``noise`` are (N, 4, H, W) float32; ``contexts`` is (2 N, T, D) float32, the
    empty prompt's half first. With ``last=0`` the latents come back as they are; with
    ``last=steps`` nothing of them is left.
    """
    if not last:
        return latents
    count = len(latents)
    scheduler = create_scheduler(SCHEDULER_CONFIG)
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(steps - last)
    timesteps = scheduler.timesteps
    if last == steps:
        latents = noise
    else:
        alpha = schedule_alphas()[int(timesteps[0])]
        latents = np.sqrt(alpha) * latents + np.sqrt(1 - alpha) * noise
    unet.eval()
    with paddle.no_grad():
        for timestep in timesteps:
            doubled = paddle.to_tensor(np.concatenate([latents, latents]))
            times = paddle.full([2 * count], float(timestep))
            predicted = unet(doubled, times, paddle.to_tensor(contexts)).numpy()
            empty, prompted = predicted[:count], predicted[count:]
            guided = empty + guidance_scale * (prompted - empty)
            latents = scheduler.step(guided, timestep, latents, noise=_refuse_noise)
    return latents
