"""Published models without their weights: the configs alone, from which networks can be made."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from typing import Any

from fastdeploy_diffusion.checkpoints import build_skeleton, list_shapes
from fastdeploy_diffusion.checkpoints.checkpoint import Family
from fastdeploy_diffusion.checkpoints.diffusers_folder import CLASSES
from fastdeploy_diffusion.checkpoints.published_configs import SD_1_5, SD_2_1, SDXL_BASE
from fastdeploy_diffusion.checkpoints.published_flux_configs import FLUX_DEV, FLUX_SCHNELL
from fastdeploy_diffusion.families.networks.autoencoder import AutoencoderKLConfig
from fastdeploy_diffusion.families.networks.clip import CLIPTextConfig
from fastdeploy_diffusion.families.networks.flux import FluxTransformer2DConfig
from fastdeploy_diffusion.families.networks.t5 import T5Config
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.models.autoencoder import AutoencoderKL
from fastdeploy_diffusion.models.clip import CLIPTextModel, CLIPTextModelWithProjection
from fastdeploy_diffusion.models.flux import FluxTransformer2DModel
from fastdeploy_diffusion.models.t5 import T5EncoderModel
from fastdeploy_diffusion.models.unet import UNet2DConditionModel

_MAKERS: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "AutoencoderKL": lambda config: AutoencoderKL(AutoencoderKLConfig.from_dict(config)),
    "CLIPTextModel": lambda config: CLIPTextModel(CLIPTextConfig.from_dict(config)),
    "CLIPTextModelWithProjection": lambda config: CLIPTextModelWithProjection(
        CLIPTextConfig.from_dict(config)
    ),
    "FluxTransformer2DModel": lambda config: FluxTransformer2DModel(
        FluxTransformer2DConfig.from_dict(config)
    ),
    "T5EncoderModel": lambda config: T5EncoderModel(T5Config.from_dict(config)),
    "UNet2DConditionModel": lambda config: UNet2DConditionModel(
        UNet2DConditionConfig.from_dict(config)
    ),
}


@dataclass(frozen=True)
class Architecture:
    """A published model without its weights.

    Args:
        family: The family.
        configs: Of each component.
        dtype: In which its weights are published.
    """

    family: Family
    configs: Mapping[str, Mapping[str, Any]]
    dtype: str

    def sketch(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """List the shape of each network's tensors, in their order; takes no memory."""
        return {
            name: list_shapes(
                build_skeleton(partial(_MAKERS[class_name], dict(self.configs[name])))
            )
            for name, class_name in CLASSES[self.family].items()
        }

    @cached_property
    def parameters(self) -> int:
        """How many all networks have."""
        networks = self.sketch().values()
        return sum(prod(shape) for shapes in networks for shape in shapes.values())


ARCHITECTURES: Mapping[str, Architecture] = {
    "sd15": Architecture("sd1", SD_1_5, "F16"),
    "sd21": Architecture("sd2", SD_2_1, "F16"),
    "sdxl": Architecture("sdxl", SDXL_BASE, "F16"),
    "flux-dev": Architecture("flux", FLUX_DEV, "BF16"),
    "flux-schnell": Architecture("flux", FLUX_SCHNELL, "BF16"),
}
