"""A tiny decoder for a model in the box, which learns from the full one."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paddle
from paddle import Tensor
from safetensors.numpy import load_file, save_file

from fastdeploy_diffusion import DiffusionConfig, GenerationRequest
from fastdeploy_diffusion.families.networks.autoencoder_tiny import AutoencoderTinyConfig
from fastdeploy_diffusion.models.autoencoder_tiny import TinyBlock, TinyDecoder
from fastdeploy_diffusion.pipelines.opening import open_pipeline
from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor
from fastdeploy_diffusion.predictors.packing import unpack
from shapes.flux_latents import SIDE
from shapes.pictures import save_grid, training_scenes
from shapes.pool import spell
from shapes.training_run import TrainingRun

# Where there are few pixels: at the picture's own size, blocks would take half of the time.
BLOCKS = {"shapes": [4, 4, 2, 0], "flux-shapes": [3, 3, 3, 2, 0]}
LATENT_CHANNELS = {"shapes": 4, "flux-shapes": 16}
WIDTH = 32
_STEPS = 10
_TOGETHER, _IN_A_FILE = 8, 200


class DecodedPool(NamedTuple):
    """What a model has drawn of training scenes.

    Attributes:
        latents: Scaled, (N, C, H, W) float32.
        images: What the full decoder makes of them, (N, 3, 128, 128) float16 in [0, 1].
    """

    latents: np.ndarray
    images: np.ndarray


def create_tiny_decoder(model: str) -> TinyDecoder:
    """An untrained decoder for the latents of the preset ``model``."""
    blocks = BLOCKS[model]
    widths = [WIDTH] * len(blocks)
    decoder = TinyDecoder(
        AutoencoderTinyConfig.from_dict(
            {
                "latent_channels": LATENT_CHANNELS[model],
                "decoder_block_out_channels": widths,
                "encoder_block_out_channels": widths,
                "num_decoder_blocks": blocks,
                "num_encoder_blocks": [0] * len(blocks),
            }
        )
    )
    # Without norms, every layer would make the numbers larger, and the first steps kill its ReLUs.
    last = [layer.conv[-1] for layer in decoder.layers if isinstance(layer, TinyBlock)]
    for layer in (*last, decoder.layers[-1]):
        layer.weight.set_value(0.1 * layer.weight)
    decoder.layers[-1].bias.set_value(paddle.full([3], 0.5))
    return decoder


def draw_pool(model: str, path: Path, *, count: int, seed: int) -> DecodedPool:
    """Draw ``count`` training scenes with the whole model, or read those in ``path``.

    Each part of the pool is written when it is drawn, and a run that was stopped goes on there.
    """
    random = np.random.default_rng(seed)
    scenes = training_scenes()
    # Every scene as often as any other, in a random order.
    order = random.permutation(np.resize(np.arange(len(scenes)), count))
    captions = [str(random.choice(spell(scenes[row]))) for row in order]
    parts = range(0, count, _IN_A_FILE)
    files = [path / f"{part:05}.safetensors" for part in parts]
    if not all(file.exists() for file in files):
        path.mkdir(parents=True, exist_ok=True)
        with open_pipeline(DiffusionConfig.from_preset(model, vae_decoder="full")) as pipeline:
            for part, file in zip(parts, files, strict=True):
                if not file.exists():
                    _draw_part(pipeline, captions[part : part + _IN_A_FILE], seed + part, file)
                    print(f"{model}: {part} of {count} pictures", flush=True)
    pools = [load_file(file) for file in files]
    return DecodedPool(
        *(np.concatenate([pool[name] for pool in pools]) for name in DecodedPool._fields)
    )


def _draw_part(pipeline: DiffusionPredictor, captions: list[str], seed: int, file: Path) -> None:
    """Draw captions, the first with ``seed``, and write their latents and pictures."""
    latents, images = [], []
    for start in range(0, len(captions), _TOGETHER):
        prompts = captions[start : start + _TOGETHER]
        request = GenerationRequest(
            prompt=prompts,
            seed=[seed + start + index for index in range(len(prompts))],
            num_inference_steps=_STEPS,
            output_type="np",
        )
        for event in pipeline.stream(request):
            last = event
        tokens = last.latents
        latents.append(unpack(tokens, SIDE, SIDE) if tokens.ndim == 3 else tokens)
        # A safetensors file holds arrays as they lie in memory.
        drawn = last.result.images.transpose(0, 3, 1, 2)
        images.append(np.ascontiguousarray(drawn, np.float16))
    partial = file.with_suffix(".partial")
    save_file({"latents": np.concatenate(latents), "images": np.concatenate(images)}, partial)
    os.replace(partial, file)


def train_tiny_decoder(
    decoder: TinyDecoder, pool: DecodedPool, path: Path, *, steps: int, batch: int, side: int
) -> None:
    """Learn to decode as the full decoder does, which has seen the whole latents.

    Three steps in four see ``batch`` crops of ``side`` latent pixels, where most of the edges are;
    the fourth a few whole pictures.
    """
    run = TrainingRun(
        path, {"decoder": decoder}, steps=steps, learning_rate=2e-3, average_decay=0.99
    )
    height = pool.latents.shape[2]
    scale = pool.images.shape[2] // height
    busy = _find_busy_places(pool.images, scale)
    for random in run.run(save_every=100):
        crop = height if run.step % 4 == 3 else side
        count = max(1, batch * side**2 // crop**2)
        rows = random.integers(len(pool.latents), size=count)
        latents = np.empty((count, pool.latents.shape[1], crop, crop), np.float32)
        images = np.empty((count, 3, crop * scale, crop * scale), np.float32)
        for index, row in enumerate(rows):
            # Around a place with an edge.
            place = random.choice(busy[row]) if len(busy[row]) else 0
            top, left = (
                int(np.clip(each - random.integers(crop), 0, height - crop))
                for each in divmod(int(place), height)
            )
            latents[index] = pool.latents[row, :, top : top + crop, left : left + crop]
            images[index] = pool.images[
                row, :, top * scale : (top + crop) * scale, left * scale : (left + crop) * scale
            ]
        wanted = paddle.to_tensor(2 * images - 1)
        decoded = decoder(paddle.to_tensor(latents))
        run.learn(_measure_loss(decoded, wanted))
        if (run.step + 1) % 200 == 0 and crop == height:
            grid = np.concatenate([wanted.numpy(), decoded.numpy()])
            save_grid(grid, path.with_suffix(".png"), columns=count)
    run.use_average()


def _measure_loss(decoded: Tensor, wanted: Tensor) -> Tensor:
    """Differences of pixels, and of their steps to the next ones, which blurred edges miss."""
    error = decoded - wanted
    across, down = error[..., 1:] - error[..., :-1], error[..., 1:, :] - error[..., :-1, :]
    return (
        error.abs().mean() + error.square().mean() + 0.5 * (across.abs().mean() + down.abs().mean())
    )


def _find_busy_places(images: np.ndarray, scale: int) -> list[np.ndarray]:
    """For each picture, the latent pixels, counted row by row, in which its colour changes."""
    count, _, height, width = images.shape
    cells = images.reshape(count, 3, height // scale, scale, width // scale, scale)
    spread = np.ptp(cells.astype(np.float32), axis=(3, 5)).max(axis=1)
    return [np.flatnonzero(each > 0.2) for each in spread.reshape(count, -1)]


def write_tiny_decoder(decoder: TinyDecoder, path: Path) -> None:
    """Write a decoder in half precision, with the names of the original code.

    Its layers are counted from 1: the limiter before them is layer 0.
    """
    weights = {}
    for name, weight in decoder.layers.state_dict().items():
        index, rest = name.split(".", 1)
        weights[f"{int(index) + 1}.{rest}"] = weight.numpy().astype(np.float16)
    save_file(weights, path, metadata={"format": "pt"})
