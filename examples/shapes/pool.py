"""Pictures of the world, encoded once, and their captions."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from safetensors.numpy import load_file, save_file

from fastdeploy_diffusion.models.autoencoder import AutoencoderKL
from shapes.pictures import training_scenes
from shapes.world import Scene, all_scenes, draw

SPELLINGS = 4


@dataclass(frozen=True)
class LatentPool:
    """Pictures of the world, already encoded: every worker has its own.

    ``mean`` and ``deviation`` are (N, C, H, W) float32; ``scenes`` holds N indices.
    """

    scenes: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    @property
    def scaling_factor(self) -> float:
        """What brings the latents to unit variance."""
        variance = self.mean.var() + np.square(self.deviation).mean()
        return round(1 / float(np.sqrt(variance)), 4)

    def weigh(self) -> np.ndarray:
        """How often each picture is chosen: the shapes that are learned last come more often."""
        hardness = [
            3.0
            if scene.shape == "star" and scene.size != "large"
            else 1.5
            if scene.shape == "square"
            else 1.0
            for scene in training_scenes()
        ]
        weights = np.array(hardness)[self.scenes]
        return weights / weights.sum()


def spell(scene: Scene) -> list[str]:
    """The `SPELLINGS` captions of a scene, half of them in each language."""
    english, chinese = scene.caption("en"), scene.caption("zh")
    return [english, english.replace("a orange", "an orange"), chinese, chinese]


def list_unseen_captions() -> list[str]:
    """Captions of eight held-out scenes, four in each language."""
    unseen = [scene for scene in all_scenes() if scene.is_held_out][::24][:8]
    return [scene.caption("en" if i < 4 else "zh") for i, scene in enumerate(unseen)]


def encode_pool(vae: AutoencoderKL, path: Path, *, count: int, seed: int) -> LatentPool:
    """Draw and encode ``count`` training pictures, or read those that ``path`` holds already."""
    if not path.exists():
        random = np.random.default_rng(seed)
        scenes = training_scenes()
        # Every scene as often as any other, in a random order.
        order = random.permutation(np.resize(np.arange(len(scenes)), count))
        means, deviations = [], []
        vae.eval()
        for start in range(0, count, 16):
            batch = np.stack([draw(scenes[i], random) for i in order[start : start + 16]])
            with paddle.no_grad():
                mean, log_variance = vae.encode(paddle.to_tensor(batch.transpose(0, 3, 1, 2)))
            means.append(mean.numpy())
            deviations.append((0.5 * log_variance).exp().numpy())
        partial = path.with_suffix(".partial")
        save_file(
            {
                "scenes": order,
                "mean": np.concatenate(means),
                "deviation": np.concatenate(deviations),
            },
            partial,
        )
        os.replace(partial, path)
    return LatentPool(**load_file(path))
