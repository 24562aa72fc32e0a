"""The families by name."""

from collections.abc import Mapping
from types import MappingProxyType

from fastdeploy_diffusion.families.family import Family
from fastdeploy_diffusion.families.flux import FLUX
from fastdeploy_diffusion.families.sd import SD1, SD2
from fastdeploy_diffusion.families.sdxl import SDXL, SDXL_REFINER
from fastdeploy_diffusion.suggest import list_choices

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {each.name: each for each in (SD1, SD2, SDXL, SDXL_REFINER, FLUX)}
)


def name_families() -> str:
    """Name all, for messages: ``SD 1.x, SD 2.x, SDXL or Flux``."""
    return list_choices(each.title for each in FAMILIES.values())
