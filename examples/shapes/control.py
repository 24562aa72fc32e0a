"""A ControlNet for the model in the box: edges say where the object is, and how large."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paddle
from paddle.nn import functional as F
from safetensors.numpy import load_file, save_file

from fastdeploy_diffusion.checkpoints import build_layer, open_checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.families.networks.controlnet import ControlNetConfig
from fastdeploy_diffusion.models.autoencoder import AutoencoderKL
from fastdeploy_diffusion.models.clip import CLIPTextModel
from fastdeploy_diffusion.models.controlnet import ControlNetModel
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.tokenizers import CLIPTokenizer
from shapes.convolutions import speed_up
from shapes.denoising import UNET_CONFIG, encode_captions, schedule_alphas
from shapes.pictures import training_scenes
from shapes.pool import SPELLINGS, spell
from shapes.training_run import TrainingRun
from shapes.world import Placement, Scene, draw_edges, paint, place_object

_SHARED = (
    "attention_head_dim",
    "block_out_channels",
    "cross_attention_dim",
    "in_channels",
    "layers_per_block",
    "norm_num_groups",
)
CONTROLNET_CONFIG = {
    "_class_name": "ControlNetModel",
    **{key: UNET_CONFIG[key] for key in _SHARED},
    # Edges say nothing that depends on the text, and attention is half of the weights.
    "down_block_types": ["DownBlock2D"] * len(UNET_CONFIG["block_out_channels"]),
    "mid_block_type": "UNetMidBlock2D",
    "conditioning_embedding_out_channels": [4, 8, 16, 32],
}
_CAPTION_DROPOUT = 0.15


class ControlPool(NamedTuple):
    """Placed scenes, already encoded.

    Attributes:
        scenes: Indices of training scenes, (N,).
        places: Where their objects are.
        mean: Latents, (N, C, H, W) float32; ``deviation`` likewise.
    """

    scenes: np.ndarray
    places: list[Placement]
    mean: np.ndarray
    deviation: np.ndarray


@dataclass(frozen=True)
class ShapesModel:
    """The trained parts of the model in the box, which stay as they are."""

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    unet: UNet2DConditionModel

    @property
    def scaling_factor(self) -> float:
        """What brings the latents to unit variance."""
        return self.vae.config.scaling_factor


def open_shapes() -> ShapesModel:
    """Open the model in the box, with its weights in float32."""
    checkpoint = open_checkpoint(DiffusionConfig.from_preset("shapes").model_path)
    layers = {
        name: build_layer(
            partial(kind.make, checkpoint.read_network(name, kind.config.from_dict)),
            checkpoint.tensors(name),
        )
        for name, kind in checkpoint.family.networks.items()
    }
    folder = checkpoint.folder("tokenizer")
    assert folder is not None  # it is a folder of diffusers
    tokenizer = CLIPTokenizer.from_folder(folder)
    return ShapesModel(layers["vae"], layers["text_encoder"], tokenizer, layers["unet"])


def create_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """An untrained ControlNet, whose way down begins as the UNet's, and which adds nothing yet."""
    controlnet = ControlNetModel(ControlNetConfig.from_dict(CONTROLNET_CONFIG))
    known = unet.state_dict()
    for name, weight in controlnet.state_dict().items():
        if name in known and known[name].shape == weight.shape:
            weight.set_value(known[name])
    zeros = [
        *controlnet.controlnet_down_blocks,
        controlnet.controlnet_mid_block,
        controlnet.controlnet_cond_embedding.conv_out,
    ]
    for layer in zeros:
        for parameter in layer.parameters():
            parameter.set_value(paddle.zeros(parameter.shape))
    return controlnet


def encode_placed(vae: AutoencoderKL, path: Path, *, count: int, seed: int) -> ControlPool:
    """Draw and encode ``count`` training scenes, each with its object somewhere else.

    Those that ``path`` holds already are read.
    """
    random = np.random.default_rng(seed)
    scenes = training_scenes()
    # Every scene as often as any other, in a random order.
    order = random.permutation(np.resize(np.arange(len(scenes)), count))
    places = [place_object(random) for _ in order]
    if path.exists():
        return ControlPool(order, places, **load_file(path))
    means, deviations = [], []
    vae.eval()
    for start in range(0, count, 16):
        rows = range(start, min(start + 16, count))
        batch = np.stack([paint(scenes[order[row]], places[row]) for row in rows])
        with paddle.no_grad():
            mean, log_variance = vae.encode(paddle.to_tensor(batch.transpose(0, 3, 1, 2)))
        means.append(mean.numpy())
        deviations.append((0.5 * log_variance).exp().numpy())
    encoded = {"mean": np.concatenate(means), "deviation": np.concatenate(deviations)}
    save_file(encoded, path)
    return ControlPool(order, places, **encoded)


def caption_placed(scene: Scene) -> list[str]:
    """Caption a scene without its size, which the edges say."""
    return spell(Scene("", scene.colour, scene.shape, scene.background))


def train_controlnet(
    controlnet: ControlNetModel,
    model: ShapesModel,
    pool: ControlPool,
    path: Path,
    *,
    steps: int,
    batch: int,
    learning_rate: float = 1e-3,
) -> None:
    """Train on velocity prediction (Salimans & Ho, 2022), with the UNet as it is."""
    scenes = training_scenes()
    captions = [text for scene in scenes for text in caption_placed(scene)]
    contexts = encode_captions(model.text_encoder, model.tokenizer, [*captions, ""])
    alphas = schedule_alphas()
    for parameter in model.unet.parameters():
        parameter.stop_gradient = True
    model.unet.eval()
    speed_up(model.unet)
    run = TrainingRun(path, {"controlnet": controlnet}, steps=steps, learning_rate=learning_rate)
    for random in run.run(save_every=100):
        chosen = random.integers(len(pool.scenes), size=batch)
        shape = pool.mean[chosen].shape
        latents = pool.mean[chosen] + pool.deviation[chosen] * random.standard_normal(
            shape, np.float32
        )
        latents = model.scaling_factor * latents
        noise = random.standard_normal(shape, np.float32)
        # Places are decided early, where there is most noise.
        timesteps = (1000 * np.sqrt(random.random(batch))).astype(int)
        signal = np.sqrt(alphas[timesteps])[:, None, None, None]
        blur = np.sqrt(1 - alphas[timesteps])[:, None, None, None]
        rows = SPELLINGS * pool.scenes[chosen] + random.integers(SPELLINGS, size=batch)
        rows[random.random(batch) < _CAPTION_DROPOUT] = len(contexts) - 1
        edges = np.stack(
            [
                draw_edges(scenes[pool.scenes[row]].shape, pool.places[row], random.uniform(1, 3))
                for row in chosen
            ]
        )
        sample = paddle.to_tensor(signal * latents + blur * noise)
        times = paddle.to_tensor(timesteps.astype(np.float32))
        residuals = controlnet(
            sample, times, paddle.to_tensor(np.repeat(edges[:, None], 3, axis=1))
        )
        features = model.unet.embed(times, paddle.to_tensor(contexts[rows]))
        predicted = model.unet.denoise(sample, *features, *residuals)
        velocity = paddle.to_tensor(signal * noise - blur * latents)
        run.learn(F.mse_loss(predicted, velocity))
    run.use_average()
