"""Full-size checkpoints with seeded random weights, for those who have no published one."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import resources
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.checkpoints import build_skeleton, list_shapes
from fastdeploy_diffusion.checkpoints.diffusers_writer import write_diffusers_folder
from fastdeploy_diffusion.checkpoints.published_configs import SD_1_5, SD_2_1
from fastdeploy_diffusion.engines.cache import default_cache_folder
from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.models.autoencoder import AutoencoderKL, AutoencoderKLConfig
from fastdeploy_diffusion.models.clip import CLIPTextConfig, CLIPTextModel
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.models.unet_config import UNet2DConditionConfig
from fastdeploy_diffusion.suggest import did_you_mean

# Those that this version has a pipeline for.
ARCHITECTURES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {"sd15": SD_1_5, "sd21": SD_2_1}
SEED = 0
DESCRIPTION = f"seed {SEED}, float16, biases 0.02, matrices 1 / sqrt(inputs)"

_MAKERS: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "text_encoder": lambda config: CLIPTextModel(CLIPTextConfig.from_dict(config)),
    "unet": lambda config: UNet2DConditionModel(UNet2DConditionConfig.from_dict(config)),
    "vae": lambda config: AutoencoderKL(AutoencoderKLConfig.from_dict(config)),
}


def make_random_checkpoint(name: str) -> Path:
    """Write a diffusers folder of a published architecture, if it is not there yet.

    The tokenizer is that of the model in the box at CLIP's length: CLIP's own cannot be shipped.

    Args:
        name: One of ``ARCHITECTURES``.

    Returns:
        The folder, beside the cache of builds.

    Raises:
        ConfigError: There is no such architecture.
    """
    if name not in ARCHITECTURES:
        raise ConfigError(
            f"--random-weights {name}",
            allowed=", ".join(ARCHITECTURES),
            fix=did_you_mean(name, ARCHITECTURES),
        )
    root = default_cache_folder()
    folder = root.with_name(f"{root.name}-random-weights") / f"{name}-seed{SEED}"
    if not (folder / "model_index.json").exists():
        configs = ARCHITECTURES[name]
        presets = Path(str(resources.files("fastdeploy_diffusion.configs")))
        write_diffusers_folder(
            folder, configs, draw_weights(configs), presets / "shapes" / "tokenizer"
        )
    return folder


def draw_weights(
    configs: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[str, dict[str, npt.NDArray[np.float16]]]]:
    """Draw each component's weights so that nothing vanishes or overflows on the way.

    Args:
        configs: Of each component.
    """
    random = np.random.default_rng(SEED)
    for name, make in _MAKERS.items():
        layer = build_skeleton(partial(make, dict(configs[name])))
        yield name, {key: _draw(random, key, shape) for key, shape in list_shapes(layer).items()}


def _draw(
    random: np.random.Generator, name: str, shape: tuple[int, ...]
) -> npt.NDArray[np.float16]:
    values = random.standard_normal(shape, np.float32)
    if len(shape) > 1:
        values /= np.float32(np.sqrt(prod(shape[1:])))
    else:  # those of norms are near 1, and biases near 0
        values = np.float32(0.02) * values + np.float32(name.endswith("weight"))
    return values.astype(np.float16)
